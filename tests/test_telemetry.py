"""Events reach every observer; one that raises is detached, and harms nobody."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from flowstream.telemetry import Event, Received, Telemetry
from tests.support.pipelines import Recorder


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def observe(self, event: Event) -> None:
        self.calls += 1
        raise self.error


def received(count: int) -> Received:
    return Received("test", "orders", count, 10 * count)


def test_nobody_listens_until_somebody_is_attached() -> None:
    telemetry, recorder = Telemetry(), Recorder()
    active = [telemetry.active]
    telemetry.emit(received(1))
    telemetry.attach(recorder)
    active.append(telemetry.active)
    telemetry.emit(received(2))
    telemetry.detach(recorder)
    active.append(telemetry.active)
    telemetry.emit(received(3))
    assert recorder.events == [received(2)]
    assert active == [False, True, False]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3)], ids=["exception", "exit"])
def test_an_observer_that_raises_is_detached_and_the_others_go_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    first, broken, last = Recorder(), Broken(error), Recorder()
    telemetry = Telemetry(first, broken, last)
    with caplog.at_level(logging.ERROR, "flowstream"):
        for count in (1, 2):
            telemetry.emit(received(count))
    assert first.events == last.events == [received(1), received(2)]
    assert broken.calls == 1
    assert [record.message for record in caplog.records] == [
        f"observer {broken!r} raised and was detached"
    ]


class Awaited:
    async def observe(self, event: Event) -> None: ...


@pytest.mark.parametrize(
    "observer", [Awaited(), print, Recorder], ids=["async", "function", "class"]
)
def test_what_cannot_observe_is_refused_at_once(observer: Any) -> None:
    for add in (Telemetry, Telemetry().attach):
        with pytest.raises(
            TypeError, match=r"is no observer: expected an object with a method `observe\(event\)`"
        ):
            add(observer)


def test_ctrl_c_in_an_observer_gets_through() -> None:
    telemetry = Telemetry(Broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        telemetry.emit(received(1))
    assert telemetry.active
