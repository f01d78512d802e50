"""`python -m flowstream.metrics > docs/metrics.md`."""

import sys

from flowstream.metrics.document import document

sys.stdout.write(document())
