"""A worker process answers one call after the other, and how it ended is told."""

from __future__ import annotations

import os
import pickle
import sys

import pytest

from flowstream.errors import WorkerDied
from flowstream.pipeline.handlers.worker_process import WorkerProcess, how_ended


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_calls_are_answered_in_turn_until_the_process_dies() -> None:
    process = await WorkerProcess.start("handle")
    try:
        for base in (10, 11):
            assert await process.call(pickle.dumps((int, (str(base), 8)))) == int(str(base), 8)
        with pytest.raises(ValueError, match="invalid literal"):
            await process.call(pickle.dumps((int, ("x",))))
        assert await process.call(pickle.dumps((os.getpid, ()))) != os.getpid()
        arguments = pickle.dumps((eval, ("__import__('sys').argv",)))
        assert await process.call(arguments) == sys.argv
        assert not process.ended
        with pytest.raises(WorkerDied, match=r"worker process of 'handle' ended with exit code 4"):
            await process.call(pickle.dumps((os._exit, (4,))))
        assert process.ended
    finally:
        await process.end()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, "was killed by signal 9 (SIGKILL): the kernel does this when memory runs out"),
        (-11, "was killed by signal 11 (SIGSEGV): native code crashed"),
        (-64, "was killed by signal 64"),
        (4, "ended with exit code 4"),
        (0, "ended with exit code 0"),
        (None, "closed its pipe and did not end"),
    ],
)
def test_how_a_process_ended(code: int | None, text: str) -> None:
    assert how_ended(code).startswith(text)
