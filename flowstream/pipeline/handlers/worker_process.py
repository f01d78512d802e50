"""One worker process: a Python of its own that answers calls, one after the other, over pipes.

A call is a pickled function with its arguments; the answer is what it returned or raised, pickled.
Both begin with their length. The process ends when its standard input ends, or when it is killed;
`WorkerDied` says how it ended.
"""

from __future__ import annotations

import json
import os
import pickle
import runpy
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import ModuleType
from typing import Any

import anyio
from anyio.abc import ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from flowstream.errors import WorkerDied
from flowstream.texts import describe

_LENGTH = struct.Struct("!Q")
_BEGIN = (
    "import signal as s; "
    "[(s.signal(n, lambda *_: None), s.siginterrupt(n, False))"
    " for n in (s.SIGINT, s.SIGTERM, s.SIGHUP)]; "
    "import json, sys; sys.path[:], main, sys.argv[:] = json.loads(sys.argv[1]); "
    "from flowstream.pipeline.handlers.worker_process import serve; serve(*main)"
)
"""The process does nothing about signals to all processes of a run, which the pipeline handles.

Supervisors send them to all processes of a service, at any time: also while imports take long,
where a SIGINT would otherwise come back as the KeyboardInterrupt of a handler. The process ends
with that of the pipeline. The signals are not ignored, because programs that a handler
starts would inherit that, and could not be terminated; system calls of extensions go on after them.
"""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""They wait while a handler forks: the child would do nothing about them until it has its own."""
_MAIN = "__mp_main__"
"""The name of the main module in a worker process, as in multiprocessing."""
PARENT_CHECK = 0.5
"""Seconds between two checks of a process whether the pipeline's process still exists."""
_GONE = (
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)
END_TIMEOUT = 1.0
"""Seconds in which a process that has closed its pipe must end."""
HINTS = {
    "SIGKILL": "the kernel does this when memory runs out (see dmesg, or the container's events): "
    "give it more memory, or fewer messages at once (max_demand=, size=)",
    "SIGSEGV": "native code crashed, in an extension that the handler uses",
    "SIGABRT": "native code gave up, in an extension that the handler uses",
    "SIGBUS": "native code crashed, in an extension that the handler uses",
}


class WorkerProcess:
    """A worker process, given one call at a time."""

    def __init__(self, process: Process, stage: str) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        self._process = process
        self._stage = stage
        self._calls: ByteSendStream = process.stdin
        self._answers = BufferedByteReceiveStream(process.stdout)
        self._calling = False

    @classmethod
    async def start(cls, stage: str) -> WorkerProcess:
        """Start a process for the handler of `stage`. It does not import the handler yet."""
        sys.modules.setdefault(_MAIN, sys.modules["__main__"])  # what comes back is of this name
        process = await anyio.open_process(
            [sys.executable, "-c", _BEGIN, json.dumps([sys.path, main_module(), sys.argv])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that it can be ended with the programs that it has started
        )
        return cls(process, stage)

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def call(self, request: bytes) -> Any:
        """What the function returned. Raises what it raised, or WorkerDied.

        After a cancellation the process is in the middle of the call, and must be ended.
        """
        self._calling = True
        try:
            await self._calls.send(_LENGTH.pack(len(request)) + request)
            (size,) = _LENGTH.unpack(await self._answers.receive_exactly(_LENGTH.size))
            answer = await self._answers.receive_exactly(size)
        except _GONE as error:
            raise await self._died() from error
        self._calling = False
        returned, value = pickle.loads(answer)  # noqa: S301 - our own
        if not returned:
            raise value
        return value

    async def end(self) -> None:
        """Kill the process, and wait until it has ended.

        In the middle of a call, programs that the handler has started end with it: another call for
        the same message would start them again.
        """
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError, PermissionError):
                if self._calling:
                    self._calling = False
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            await self._process.aclose()

    async def _died(self) -> WorkerDied:
        with anyio.CancelScope(shield=True), anyio.move_on_after(END_TIMEOUT):
            await self._process.wait()
        code = self._process.returncode
        await self.end()
        return WorkerDied(
            f"a worker process of {self._stage!r} {how_ended(code)}",
            pid=self._process.pid,
            code=code,
        )


def main_module() -> tuple[str | None, str | None]:
    """The name (of `python -m NAME`) and the file of the main module; it may have neither."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name == "__main__":  # of a folder, whose file has to be run
        name = None
    return name, getattr(main, "__file__", None)


def main_can_be_run(name: str | None, file: str | None) -> bool:
    """Whether another process can run that module: not that of an interactive session."""
    return name is not None or (file is not None and os.path.isfile(file))


def how_ended(code: int | None) -> str:
    """`was killed by signal 9 (SIGKILL): ...`, or `ended with exit code 4`."""
    if code is None:
        return "closed its pipe and did not end, so it was killed"
    if code >= 0:
        return f"ended with exit code {code}: the handler, or something it uses, ended it"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"was killed by signal {-code}"
    hint = HINTS.get(name)
    return f"was killed by signal {-code} ({name}){f': {hint}' if hint else ''}"


# -- in the process


_imports_main = False


def imports_main() -> bool:
    """Whether this is a worker process that is running the pipeline's main module."""
    return _imports_main


def serve(name: str | None, file: str | None) -> None:
    """Answer calls until standard input ends. `name` and `file` are those of `main_module`.

    What a handler prints is discarded. The pipes of calls and answers leave the numbers of standard
    input and output, because programs that a handler starts inherit those: they would read the next
    call, or write into an answer.
    """
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS),
        after_in_child=_default_signals,
    )
    broken = _as_main(name, file)
    while len(header := calls.read(_LENGTH.size)) == _LENGTH.size:
        request = calls.read(_LENGTH.unpack(header)[0])
        answer = _answered(request) if broken is None else _pickled((False, broken))
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _default_signals() -> None:
    """In a process that a handler forks, let signals do what they do in any program."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _end_with(parent: int) -> None:
    """End this process, and those that it has started, when its parent has ended or was killed.

    (PR_SET_PDEATHSIG would end it with the thread that started it, which on trio is not the main
    one.)
    """
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os.killpg(0, signal.SIGKILL)


def _answered(request: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(request)  # noqa: S301 - our own
        return _pickled((True, function(*arguments)))
    except BaseException as error:
        return _pickled((False, error))


def _pickled(answer: tuple[bool, Any]) -> bytes:
    try:
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        return pickle.dumps((False, RuntimeError(describe(error))))


def _as_main(name: str | None, file: str | None) -> BaseException | None:
    """Run the pipeline's main module, for handlers that it defines. Returns its error, if any.

    It runs under another name, because the code under `if __name__ == "__main__"` must not run in
    this process. A pipeline that it starts all the same would start processes without end. It may
    read the command line, so `sys.argv` is that of the pipeline's process.
    """
    global _imports_main  # noqa: PLW0603
    if not main_can_be_run(name, file):
        return None
    _imports_main = True
    try:
        module = ModuleType(_MAIN)
        if name is not None:
            ran = runpy.run_module(name, run_name=_MAIN)
        else:
            ran = runpy.run_path(str(file), run_name=_MAIN)
        vars(module).update(ran)
        sys.modules["__main__"] = sys.modules[_MAIN] = module
    except BaseException as error:
        return error
    finally:
        _imports_main = False
    return None
