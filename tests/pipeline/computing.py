"""Handlers for worker processes, which can do everything wrong. What they do is the data's "do"."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from flowstream.pipeline import Batch, Message
from tests.test_texts import Hostile


class Foreign(BaseException):
    """What nobody foresees."""


class Unpicklable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


class ComesBackAsText(Exception):
    def __reduce__(self) -> Any:
        return str, ("text",)


class DoesNotComeBack:
    """Data that can be pickled, and not be read again."""

    def __reduce__(self) -> Any:
        return _raise, (Hostile(),)


async def _coroutine() -> None:
    """Is never awaited."""


def _raise(error: BaseException) -> Any:
    raise error


def _group() -> Any:
    raise BaseExceptionGroup("both", [Foreign("a"), ValueError("b")])


DOINGS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda item: None,
    "itself": lambda item: item,
    "number": lambda item: 7,
    "foreign": lambda item: Message.new({}),
    "few": lambda item: [],
    "many": lambda item: [item, item],
    "coroutine": lambda item: _coroutine(),
    "generator": lambda item: (each for each in ""),
    "unpicklable": lambda item: lambda: None,
    "raise": lambda item: _raise(ValueError("no")),
    "raise what cannot be pickled": lambda item: _raise(Unpicklable(1, 2)),
    "raise what comes back as text": lambda item: _raise(ComesBackAsText()),
    "raise what cannot be printed": lambda item: _raise(Hostile()),
    "data that does not come back": lambda item: DoesNotComeBack(),
    "group": lambda item: _group(),
    "foreign error": lambda item: _raise(Foreign("x")),
    "exit": lambda item: sys.exit(3),
    "cancelled": lambda item: _raise(asyncio.CancelledError()),
    "interrupt": lambda item: _raise(KeyboardInterrupt()),
    "die": lambda item: os._exit(4),
    "hang": lambda item: time.sleep(60),
}


PROGRAM = "import sys; print('printed'); sys.exit(len(sys.stdin.read()))"
"""Prints, and reads its standard input to the end."""


def first_time(file: str) -> bool:
    try:
        open(file, "x").close()
    except FileExistsError:
        return False
    return True


def process(message: Message[dict]) -> Any:
    doing = message.data.get("do", "nothing")
    if doing == "fail":
        message.fail("wanted")
    elif doing == "drop":
        message.drop("wanted")
    elif doing == "route":
        message.to("other", key=3)
    elif doing == "settle":
        message.settle()
        message.configure_ack(requeue=True)
    elif doing == "note":
        with open(message.data["file"], "a") as file:
            file.write("x")
    elif doing == "programs":
        subprocess.run([sys.executable, "-c", PROGRAM], check=True)
        os.write(1, b"written to standard output\n")
    elif doing == "killed" or (doing == "killed once" and first_time(message.data["file"])):
        os.kill(os.getpid(), signal.SIGKILL)
    elif doing == "killed once":
        return None
    elif doing == "change":
        message.data["seen"] = [*message.data["seen"], message.offset]
    elif doing == "slow":
        time.sleep(0.1)
        return os.getpid()
    else:
        return DOINGS[doing](message)
    return None


def load(batch: Batch[dict]) -> Any:
    doing = batch.data[0].get("do", "nothing")
    if doing in ("killed once", "programs", "route"):
        return process(batch.messages[0])
    batch.messages.pop()  # whatever is done to the list, every message settles
    return DOINGS[doing](batch)
