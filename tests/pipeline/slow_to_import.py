"""Handlers of a module that takes longer to import in a worker process than they may take."""

from __future__ import annotations

import sys
import time
from typing import Any

from flowstream.pipeline import Batch, Message
from tests.pipeline import computing

TIMEOUT = 1.0
if any("worker_process import serve" in it for it in sys.orig_argv):  # as they are started
    time.sleep(1.3 * TIMEOUT)


def process(message: Message[dict]) -> Any:
    return computing.process(message)


def load(batch: Batch[dict]) -> Any:
    return computing.load(batch)
