"""The frames that the threads of this process are in."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType

_looking = threading.Lock()


def frames_of_threads() -> dict[int, FrameType]:
    """What `sys._current_frames` returns: the innermost frame of each thread, by its ident.

    Python holds a lock of the interpreter while it makes these objects. If the garbage collector
    ran then, and another thread began or ended meanwhile, both would wait for each other, and the
    process would hang (gh-106883, which Python 3.11 has). So it does not run until all are made.
    """
    with _looking:  # two that look at the same time would enable it too early
        enabled = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()
        finally:
            if enabled:
                gc.enable()
