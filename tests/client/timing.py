"""Virtual time: an hour's timeout passes in a millisecond, when nothing else can happen."""

from __future__ import annotations

from functools import partial

from flowstream.testing import virtual_time as virtual_time_on

virtual_time = partial(virtual_time_on, "trio")
"""What an `anyio_backend` fixture returns for it: these tests count on trio's order."""
