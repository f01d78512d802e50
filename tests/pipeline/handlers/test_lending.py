"""A handler cannot tell that messages are lent to it, whatever it does with one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.backoff import Backoff
from flowstream.pipeline import Batch, Drop, Failure, Message, Retry
from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.handlers.worker_state import WorkerState
from flowstream.pipeline.message import Detached
from flowstream.pipeline.slice import Slice
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]

KINDS = pytest.mark.parametrize("plain", [False, True], ids=["async", "def"])


def as_kind(function: Any, plain: bool) -> Any:
    """The handler as it is, or as one that is awaited."""
    if plain:
        return function

    async def handle(message: Message[dict]) -> Any:
        return function(message)

    return handle


async def seen_in_batches(pipeline: Any) -> list[dict[str, Any]]:
    """What the batches of a whole run have: number, offset, body of every message."""
    seen: list[dict[str, Any]] = []

    @pipeline.batcher(size=7)
    async def collect(batch: Batch[Any]) -> None:
        assert batch.offsets == [message.offset for message in batch.messages]
        assert batch.data == [message.data for message in batch.messages]
        assert batch.raw == [message.raw for message in batch.messages]
        seen.extend(
            {"data": message.data, "offset": message.offset, "raw": message.raw}
            for message in batch.messages
        )

    await pipeline.run()
    return seen


def stream(count: int, *slices: int) -> MemoryStream:
    return MemoryStream(numbers(count), slices=list(slices) or [10])


@KINDS
async def test_messages_that_are_kept_stay_what_they_were(plain: bool) -> None:
    """A list, a task of its own and a closure: every other message, and two in a row."""
    kept: list[Message[dict]] = []

    def handle(message: Message[dict]) -> None:
        if n_of(message) % 5 in (0, 1, 3):
            kept.append(message)

    pipeline = pipeline_of(stream(60, 10, 7, 1))
    pipeline.processor(as_kind(handle, plain))
    seen = await seen_in_batches(pipeline)
    assert [each["offset"] for each in seen] == list(range(60))
    assert [each["raw"] for each in seen] == numbers(60)
    assert [m.offset for m in kept] == [n for n in range(60) if n % 5 in (0, 1, 3)]
    assert [n_of(m) for m in kept] == [m.offset for m in kept]
    assert [m.raw for m in kept] == [numbers(60)[m.offset] for m in kept]


Kept = Callable[[], Message[dict]]


def in_a_generator(message: Message[dict]) -> Kept:
    def generator(it: Message[dict]) -> Iterator[Message[dict]]:
        yield it

    return partial(next, generator(message))


def in_a_generator_that_has_begun(message: Message[dict]) -> Kept:
    def generator() -> Generator[Any, Message[dict], None]:
        it = yield
        while True:
            yield it

    begun = generator()
    next(begun)
    begun.send(message)
    return partial(next, begun)


def in_a_coroutine(message: Message[dict]) -> Kept:
    async def coroutine(it: Message[dict]) -> Message[dict]:
        return it

    def run(it: Coroutine[Any, Any, Message[dict]]) -> Message[dict]:
        with pytest.raises(StopIteration) as caught:
            it.send(None)
        return cast(Message[dict], caught.value.value)

    return partial(run, coroutine(message))


def in_a_closure(message: Message[dict]) -> Kept:
    return lambda: message


def in_a_default(message: Message[dict]) -> Kept:
    def function(it: Message[dict] = message) -> Message[dict]:
        return it

    return function


def in_a_frame(message: Message[dict]) -> Kept:
    frame = sys._getframe()
    return lambda: cast(Message[dict], frame.f_locals["message"])


def in_the_frame_of_an_exception(message: Message[dict]) -> Kept:
    def fails(it: Message[dict]) -> None:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        fails(message)
    return lambda: cast(Message[dict], caught.traceback[-1].frame.f_locals["it"])


def in_a_method(message: Message[dict]) -> Kept:
    method: Any = message.drop
    return lambda: cast(Message[dict], method.__self__)


def in_a_context(message: Message[dict]) -> Kept:
    variable = ContextVar[Message[dict]]("message")
    context = copy_context()
    context.run(variable.set, message)
    return partial(context.__getitem__, variable)


def in_a_thread(message: Message[dict]) -> Kept:
    go_on, found = threading.Event(), list[Message[dict]]()

    def target(it: Message[dict]) -> None:
        go_on.wait()
        found.append(it)

    thread = threading.Thread(target=target, args=(message,))
    thread.start()

    def end() -> Message[dict]:
        go_on.set()
        thread.join()
        return found[0]

    return end


@KINDS
@pytest.mark.parametrize(
    "keep",
    [
        in_a_generator,
        in_a_generator_that_has_begun,
        in_a_coroutine,
        in_a_closure,
        in_a_default,
        in_a_frame,
        in_the_frame_of_an_exception,
        in_a_method,
        in_a_context,
        in_a_thread,
    ],
)
async def test_a_message_is_kept_by_whatever_refers_to_it(
    plain: bool, keep: Callable[[Message[dict]], Kept]
) -> None:
    """Python 3.14 borrows the references of arguments, and counts those that outlive the call."""
    kept: list[tuple[int, Kept]] = []

    def handle(message: Message[dict]) -> None:
        if n_of(message) % 3 != 2:
            kept.append((n_of(message), keep(message)))

    pipeline = pipeline_of(stream(20, 9, 1))
    pipeline.processor(as_kind(handle, plain))
    seen = await seen_in_batches(pipeline)
    assert [each["offset"] for each in seen] == list(range(20))
    messages = [(n, get()) for n, get in kept]
    assert [(n, m.offset, n_of(m)) for n, m in messages] == [
        (n, n, n) for n in range(20) if n % 3 != 2
    ]


async def test_a_task_that_has_the_message_reads_the_right_one() -> None:
    read: list[tuple[int, int]] = []

    async def later(message: Message[dict], n: int) -> None:
        await anyio.sleep(0.01)
        read.append((n, message.offset))

    async with anyio.create_task_group() as group:
        pipeline = pipeline_of(stream(30))

        @pipeline.processor
        async def handle(message: Message[dict]) -> None:
            if n_of(message) % 3 == 0:
                group.start_soon(later, message, n_of(message))

        assert (await pipeline.run()).settled == {"ok": 30}
    assert sorted(read) == [(n, n) for n in range(0, 30, 3)]


@KINDS
async def test_data_that_is_returned_set_and_changed_goes_on(plain: bool) -> None:
    def handle(message: Message[dict]) -> Any:
        n = n_of(message)
        if n % 4 == 0:
            return n
        if n % 4 == 1:
            message.data = -n  # type: ignore[assignment]
        elif n % 4 == 2:
            message.data["n"] = "changed"
            return message
        return None

    pipeline = pipeline_of(stream(41))
    pipeline.processor(as_kind(handle, plain))
    seen = await seen_in_batches(pipeline)
    expected = [(n, -n, {"n": "changed"}, {"n": n})[n % 4] for n in range(41)]
    assert [each["data"] for each in seen] == expected
    assert [each["raw"] for each in seen] == numbers(41)


@KINDS
async def test_decisions_are_those_of_one_message(plain: bool) -> None:
    tries: dict[int, int] = {}

    def handle(message: Message[dict]) -> None:
        n = n_of(message)
        tries[n] = tries.get(n, 0) + 1
        if n % 10 == 3:
            message.drop("three")
        elif n % 10 == 4 and message.attempt == 1:
            message.fail("four")
        elif n % 10 == 5 and message.attempt < 3:
            raise ValueError("five")
        elif n % 10 == 6:
            message.settle()
        elif n % 10 == 7:
            message.fail("seven", retry=False)

    pipeline = pipeline_of(
        stream(100, 13), on_failure=Drop(), retry=Retry(attempts=5, backoff=Backoff(0.001))
    )
    pipeline.processor(as_kind(handle, plain))
    seen = await seen_in_batches(pipeline)
    gone = [n for n in range(100) if n % 10 in (3, 7)]
    assert sorted(each["offset"] for each in seen) == [n for n in range(100) if n not in gone]
    assert all(each["data"] == {"n": each["offset"]} for each in seen)
    assert tries == {n: {4: 2, 5: 3}.get(n % 10, 1) for n in range(100)}


@KINDS
async def test_an_exception_keeps_the_message_that_it_came_from(plain: bool) -> None:
    failed: list[tuple[int, str]] = []

    def handle(message: Message[dict]) -> None:
        if n_of(message) % 7 == 2:
            raise ValueError(f"of {n_of(message)}")

    async def on_failed(failure: Failure) -> None:
        failed.append((failure.message.offset, failure.reason))

    pipeline = pipeline_of(stream(50), on_failure=Drop(), retry=None)
    pipeline.processor(as_kind(handle, plain))
    pipeline.on_failed(on_failed)
    seen = await seen_in_batches(pipeline)
    wrong = [n for n in range(50) if n % 7 == 2]
    assert failed == [(n, f"ValueError: of {n}") for n in wrong]
    assert [each["offset"] for each in seen] == [n for n in range(50) if n not in wrong]


@KINDS
async def test_one_that_takes_too_long_fails_alone(plain: bool) -> None:
    release = threading.Event()
    handled: list[int] = []

    def block(message: Message[dict]) -> None:
        if n_of(message) == 13:
            release.wait(20)
        handled.append(n_of(message))

    async def wait(message: Message[dict]) -> None:
        if n_of(message) == 13:
            await anyio.sleep(20)
        handled.append(n_of(message))

    pipeline = pipeline_of(stream(40), on_failure=Drop(), retry=None)
    pipeline.processor(timeout=0.3)(block if plain else wait)
    try:
        seen = await seen_in_batches(pipeline)
    finally:
        release.set()
    assert [each["offset"] for each in seen] == [n for n in range(40) if n != 13]
    assert [each["data"]["n"] for each in seen] == [n for n in range(40) if n != 13]
    assert [n for n in handled if n != 13] == [n for n in range(40) if n != 13]


async def test_no_object_is_made_for_messages_that_nobody_keeps() -> None:
    """The same object comes again; as it is all that is observable, its id is looked at."""
    ids: set[int] = set()
    pipeline = pipeline_of(stream(1000, 500))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        ids.add(id(message))

    await pipeline.run()
    assert len(ids) < 100


# -- the worker that lends


def part_of(*counts: int) -> Slice[int]:
    """A slice in columns, of runs of so many messages, numbered through."""
    runs: list[Any] = []
    total = 0
    for count in counts:
        runs.append((Delivery(Detached("s"), total, count), range(count)))
        total += count
    return Slice(runs, raw=[b"%d" % n for n in range(total)], data=list(range(total)))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_a_kept_message_is_in_its_place_among_the_others(counts: list[int], data: Any) -> None:
    part = part_of(*counts)
    worker = WorkerState("stage", 0)
    worker.hold(part, 0.0)
    worker.lend()
    total = sum(counts)
    taken = data.draw(st.integers(0, total))
    assert worker.current is None
    for n in range(taken):
        assert next(worker.iterator) == n
        assert worker.left == total - n - 1
    lent = worker.lent
    assert worker.current is (lent if taken else None)
    worker.keep()
    assert worker.lent is None
    assert [message.offset for message in worker.messages] == list(range(total))
    assert [message.raw for message in worker.messages] == [b"%d" % n for n in range(total)]
    assert worker.left == total - taken
    assert [message.offset for message in worker.iterator] == list(range(taken, total))
    if taken:
        assert worker.messages[taken - 1] is lent
        assert part.messages[taken - 1] is lent
    assert [m.data for m in part.messages[taken:]] == list(range(taken, total))
