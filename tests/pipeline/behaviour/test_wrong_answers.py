"""Every callback returns nonsense, raises anything, or hangs: only what it concerns fails.

What a processor and a batch handler return is in handlers/test_return_checks.py, worker processes
are in handlers/test_processes.py, threads that hang in handlers/test_threads.py, and how a hang is
reported in handlers/test_watchdog.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.errors import CommitNotVerified, ConfigurationError, Halted, HandlerTimeout
from flowstream.pipeline import (
    Batch,
    Drop,
    Failure,
    FailurePolicy,
    Halt,
    Message,
    OpenPolicy,
    Pipeline,
    Retry,
    RunContext,
    Sink,
    Slice,
)
from tests.support.pipelines import MemoryStream, n_of, numbers, pipeline_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]
kind = pytest.mark.parametrize("kind", ["async", "def"])


@pytest.mark.parametrize("index", [-1, 3, None, True, 1.0, "1"])
@pytest.mark.parametrize("decide", [Slice.fail, Slice.drop])
async def test_a_decision_about_no_message_of_the_slice(
    index: Any, decide: Callable[..., None]
) -> None:
    """-1 is what a search returns that finds nothing: the last message is not the guilty one."""
    pipeline = pipeline_of(3, on_failure=Drop())

    @pipeline.processor(slices=True)
    async def handle(part: Slice[dict]) -> None:
        decide(part, index if len(part) == 3 else len(part))

    result = await pipeline.run()
    assert result.settled == {"discarded": 3}
    assert "expected the position of a message" in str({reason.text for reason in result.reasons})


@pytest.mark.parametrize("decide", [Slice.fail, Slice.drop])
async def test_a_decision_after_the_call_is_refused(decide: Callable[..., None]) -> None:
    kept: list[Slice[dict]] = []
    pipeline = pipeline_of(3)

    @pipeline.processor(slices=True)
    async def handle(part: Slice[dict]) -> None:
        kept.append(part)

    assert (await pipeline.run()).settled == {"ok": 3}
    with pytest.raises(RuntimeError, match="the call of the handler has ended"):
        decide(kept[0], 0)
    assert [message.offset for message in kept[0].messages] == [0, 1, 2]


class Foreign(BaseException):
    """What nobody foresees."""


def groups() -> None:
    raise BaseExceptionGroup("both", [Foreign("a"), ValueError("b")])


def cancelled() -> None:
    raise asyncio.CancelledError


def cancelled_group() -> None:
    raise BaseExceptionGroup("of cancellations", [anyio.get_cancelled_exc_class()("x")])


def leave() -> None:
    sys.exit(3)


def foreign() -> None:
    raise Foreign("x")


def plain() -> None:
    raise ValueError("no")


RAISED: dict[Callable[[], None], Any] = {
    plain: ValueError,
    foreign: Foreign,
    leave: SystemExit,
    cancelled: asyncio.CancelledError,
    groups: (Foreign, BaseExceptionGroup),
}
RAISING = [plain, foreign, leave, cancelled, groups]
raising = pytest.mark.parametrize("how", RAISING, ids=lambda how: how.__name__)


async def coroutine() -> None:
    """Is never awaited."""


def as_kind(kind: str, function: Callable[[Any], Any]) -> Any:
    """The callback as `async def` or as `def`."""

    async def as_async(argument: Any) -> Any:
        return function(argument)

    return as_async if kind == "async" else function


def keeping(pipeline: Pipeline, failures: list[Failure]) -> None:
    """A processor that changes nothing, and every failure in a list."""

    @pipeline.processor
    async def keep(message: Message[dict]) -> None: ...

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)


# -- prepare -----------------------------------------------------------------------------


PREPARED: dict[str, Callable[[list[Any]], Any]] = {
    "nothing": lambda messages: None,
    "them": lambda messages: messages,
    "reversed": lambda messages: messages[::-1],
    "few": lambda messages: messages[1:],
    "many": lambda messages: [*messages, Message.new({})],
    "twice": lambda messages: [*messages, *messages],
    "foreign": lambda messages: [Message.new({}) for _ in messages],
    "data": lambda messages: [message.data for message in messages],
    "number": lambda messages: 5,
    "coroutine": lambda messages: coroutine(),
}


@kind
@pytest.mark.parametrize("answer", PREPARED)
async def test_what_prepare_returns(kind: str, answer: str) -> None:
    failures: list[Failure] = []
    pipeline = pipeline_of(MemoryStream(numbers(20), slices=[5]), on_failure=Drop())
    keeping(pipeline, failures)
    seen: list[int] = []

    def prepare(messages: list[Message[dict]]) -> Any:
        seen.extend(map(n_of, messages))
        return PREPARED[answer](messages) if 7 in map(n_of, messages) else None

    pipeline.prepare(as_kind(kind, prepare))
    result = await pipeline.run()
    well = answer in ("nothing", "them", "reversed")
    assert set(seen) == set(range(20))
    assert result.settled == {"ok": 20} if well else set(result.settled) == {"ok", "discarded"}
    assert {failure.reason for failure in failures} == (
        set() if well else {"TypeError: prepare returns nothing, or the messages that it was given"}
    )
    failed = [n_of(failure.message) for failure in failures]
    assert failed == ([] if well else [*range(failed[0], 8)])  # the slice, as far as it holds 7


@kind
@raising
async def test_what_prepare_raises(kind: str, how: Callable[[], None]) -> None:
    failures: list[Failure] = []
    pipeline = pipeline_of(MemoryStream(numbers(20), slices=[5]), on_failure=Drop())
    keeping(pipeline, failures)

    def prepare(messages: list[Message[dict]]) -> None:
        if 7 in map(n_of, messages):
            how()

    pipeline.prepare(as_kind(kind, prepare))
    result = await pipeline.run()
    failed = [n_of(failure.message) for failure in failures]
    assert failed == [*range(failed[0], 8)]
    assert result.settled == {"ok": 20 - len(failed), "discarded": len(failed)}


# -- processor and batch handler ---------------------------------------------------------


@kind
@raising
async def test_what_batch_handlers_raise(kind: str, how: Callable[[], None]) -> None:
    failures: list[Failure] = []
    pipeline = pipeline_of(20, on_failure=Drop())
    keeping(pipeline, failures)

    def load(batch: Batch[dict]) -> None:
        if n_of(batch.messages[0]) == 5:
            how()

    pipeline.batcher(size=5)(as_kind(kind, load))
    assert (await pipeline.run()).settled == {"ok": 15, "discarded": 5}
    assert [n_of(failure.message) for failure in failures] == [5, 6, 7, 8, 9]
    assert {failure.phase for failure in failures} == {"batch"}


@pytest.mark.parametrize("stage", ["processor", "batcher"])
async def test_a_cancellation_within_is_a_failure_and_not_the_end(stage: str) -> None:
    """Groups of cancellations come out of task groups of the handler's own."""

    async def maybe(n: int) -> None:
        if n == 5:
            cancelled_group()

    pipeline = pipeline_of(10, on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if stage == "processor":
            await maybe(n_of(message))

    @pipeline.batcher(size=1)
    async def load(batch: Batch[dict]) -> None:
        if stage == "batcher":
            await maybe(n_of(batch.messages[0]))

    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("stage", ["processor", "load"])
async def test_a_handler_that_hangs_is_ended_by_its_timeout(stage: str, attempts: int) -> None:
    failures: list[Failure] = []
    pipeline = pipeline_of(20, on_failure=Drop(), retry=Retry(attempts=attempts))
    calls = 0

    async def maybe(at: str, n: int) -> None:
        nonlocal calls
        if (at, n) == (stage, 5):
            calls += 1
            await anyio.sleep_forever()

    @pipeline.processor(timeout=5, concurrency=2)
    async def handle(message: Message[dict]) -> None:
        await maybe("processor", n_of(message))

    @pipeline.batcher("load", size=1, timeout=5)
    async def load(batch: Batch[dict]) -> None:
        await maybe("load", n_of(batch.messages[0]))

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    assert (await pipeline.run()).settled == {"ok": 19, "discarded": 1}
    assert calls == attempts
    [failure] = failures
    assert type(failure.error) is HandlerTimeout
    assert failure.reason == f"HandlerTimeout: {stage} took longer than 5 s"
    assert (failure.attempts, n_of(failure.message)) == (attempts, 5)


# -- on_failed ---------------------------------------------------------------------------


@kind
@pytest.mark.parametrize("answer", [None, Drop(), Drop, "drop", 7, [Drop()], {}, coroutine])
async def test_what_on_failed_returns(kind: str, answer: Any) -> None:
    """What is no policy is told of, and the pipeline's policy decides."""
    pipeline = pipeline_of(10, on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 3:
            raise ValueError("no")

    def failed(failure: Failure) -> Any:
        return coroutine() if answer is coroutine else answer

    pipeline.on_failed(as_kind(kind, failed))
    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}


@kind
@raising
async def test_what_on_failed_raises(
    kind: str, how: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipeline_of(10, on_failure=Drop())

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) in (3, 4):
            raise ValueError("no")

    def failed(failure: Failure) -> Any:
        if n_of(failure.message) == 3:
            how()
        return Halt() if n_of(failure.message) == 9 else None

    pipeline.on_failed(as_kind(kind, failed))
    assert (await pipeline.run()).settled == {"ok": 8, "discarded": 2}
    said = "pipeline 'test': on_failed raised for <Failure orders@3"
    assert caplog.text.count(said) == 1


# -- partition_by, batch keys, batch sizes -------------------------------------------------


KEYS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "nothing": (lambda message: None, True),
    "number": (lambda message: 1.5, True),
    "tuple": (lambda message: (1, "a"), True),
    "list": (lambda message: [1], False),
    "dict": (lambda message: {}, False),
    "tuple of lists": (lambda message: ([],), False),
    "message": (lambda message: message, False),
    "foreign": (lambda message: Message.new({}), False),
    "coroutine": (lambda message: coroutine(), False),
    "generator": (lambda message: (each for each in ""), False),
}


@pytest.mark.parametrize("where", ["pipeline", "batcher"])
@pytest.mark.parametrize("answer", KEYS)
async def test_what_partition_by_returns(where: str, answer: str) -> None:
    failures: list[Failure] = []
    function, well = KEYS[answer]

    def key(message: Message[dict]) -> Any:
        return function(message) if n_of(message) == 5 else n_of(message) % 3

    partitioned: dict[str, Any] = {"partition_by": key}
    pipeline = pipeline_of(10, on_failure=Drop(), **(partitioned if where == "pipeline" else {}))
    keeping(pipeline, failures)

    @pipeline.batcher(size=3, concurrency=2, **(partitioned if where == "batcher" else {}))
    async def load(batch: Batch[dict]) -> None: ...

    settled = (await pipeline.run()).settled
    assert settled == ({"ok": 10} if well else {"ok": 9, "discarded": 1})
    assert [n_of(failure.message) for failure in failures] == ([] if well else [5])
    assert all("partition_by" in failure.reason for failure in failures)


@raising
@pytest.mark.parametrize("where", ["hash", "eq"])
async def test_batch_keys_that_raise(where: str, how: Callable[[], None]) -> None:
    class Key:
        def __init__(self, n: int) -> None:
            self.n = n

        def __hash__(self) -> int:
            if where == "hash" and self.n == 5:
                how()
            return 7

        def __eq__(self, other: object) -> bool:
            if where == "eq" and isinstance(other, Key) and 5 in (self.n, other.n):
                how()
            return True

    pipeline = pipeline_of(10, on_failure=Drop())

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to(key=Key(n_of(message)))

    @pipeline.batcher(size=50)
    async def load(batch: Batch[dict]) -> None: ...

    result = await pipeline.run()
    assert result.settled == {"ok": 9, "discarded": 1}


SIZES: dict[str, Any] = {
    "none": None,
    "few": (True,),
    "many": (True, 1, 2),
    "number": 7,
    "text": "ab",
    "list": [False, 1],
    "coroutine": coroutine,
}


@pytest.mark.parametrize("answer", SIZES)
async def test_what_a_batch_size_function_returns(answer: str) -> None:
    failures: list[Failure] = []
    pipeline = pipeline_of(10, on_failure=Drop())
    keeping(pipeline, failures)

    def size(message: Message[dict], count: int) -> Any:
        if n_of(message) == 5:
            return coroutine() if answer == "coroutine" else SIZES[answer]
        return count == 3, count + 1

    sizes: list[int] = []

    @pipeline.batcher(size=(0, size))
    async def load(batch: Batch[dict]) -> None:
        sizes.append(batch.size)

    assert (await pipeline.run()).settled == {"ok": 9, "discarded": 1}
    assert sizes == [4, 4, 1]
    [failure] = failures
    assert (n_of(failure.message), failure.phase) == (5, "batch")
    assert "not (full, accumulator)" in failure.reason


@pytest.mark.parametrize("option", ["partition_by", "size"])
async def test_functions_that_must_be_awaited_are_no_keys_and_sizes(option: str) -> None:
    async def function(message: Message[dict], count: int = 0) -> Any: ...

    pipeline = pipeline_of(1)
    value: Any = {"partition_by": function, "size": (0, function)}[option]
    with pytest.raises(ConfigurationError, match=f"> {option}=.*: expected .*a plain def"):
        pipeline.batcher("b", **{option: value})


# -- what a run opens, closes and commits to ------------------------------------------------


class Opened(MemoryStream, Sink, FailurePolicy, OpenPolicy):
    """A source, a sink and a policy, one of whose callbacks raises."""

    def __init__(self, where: str, how: Callable[[], None]) -> None:
        super().__init__(numbers(10), endless=True)
        self.where = where
        self.how = how
        self.tries = 0

    def maybe(self, where: str) -> None:
        if where == self.where:
            self.tries += 1
            self.how()

    async def open(self, context: Any) -> None:
        self.maybe("open")

    async def close(self) -> None:
        self.maybe("close")
        await super().close()

    async def commit(self, stream: str, offset: int) -> None:
        self.maybe("commit")
        await super().commit(stream, offset)

    async def verify(self, stream: str, offset: int) -> None:
        self.maybe("verify")
        await super().verify(stream, offset)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.maybe("lifespan enter")
        yield
        self.maybe("lifespan exit")

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        async def write(batch: Batch[Any]) -> None: ...

        self.maybe("writer enter")
        yield write
        self.maybe("writer exit")

    @asynccontextmanager
    async def open_policy(self, context: RunContext) -> AsyncIterator[OpenPolicy]:
        self.maybe("disposer enter")
        yield self
        self.maybe("disposer exit")

    async def handle(self, failures: Any) -> str:
        self.maybe("dispose")
        return "discarded"


OPENED = [
    *("open", "close", "commit", "verify", "lifespan enter", "lifespan exit", "writer enter"),
    *("writer exit", "disposer enter", "disposer exit", "dispose"),
]


@raising
@pytest.mark.parametrize("where", OPENED)
async def test_what_a_run_opens_closes_and_commits_to_ends_it_with_the_error(
    where: str, how: Callable[[], None]
) -> None:
    """None of them ends the program, and none is passed over; what had settled is committed."""
    source = Opened(where, how)
    pipeline = Pipeline(
        "test", source, on_failure=source, lifespan=source.lifespan, commit_interval=1
    )

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if n_of(message) == 5:
            raise ValueError("no")

    pipeline.sink("out", source, size=3, batch_timeout=0.1)
    raised: Exception | None = None
    with anyio.fail_after(100):
        try:
            async with pipeline.start() as running:
                await anyio.sleep(20)
                running.stop()
                await anyio.sleep(20)
        except Exception as error:
            raised = error
    assert raised is not None
    assert source.tries
    assert source.closed == (where != "close")
    if where in {"close", "verify", "lifespan exit", "writer exit", "disposer exit"}:
        assert source.stored == {"orders": 9}
    elif where == "dispose":
        assert source.stored == {"orders": 4}
    else:
        assert source.stored == {}
    if where == "commit":
        assert source.tries > 10, "a commit that fails is tried again"
        assert isinstance(raised, CommitNotVerified)
    elif where == "dispose":
        assert isinstance(raised, Halted)
    else:
        assert isinstance(raised, RAISED[how]) or isinstance(raised.__cause__, RAISED[how])


# -- hangs without a timeout ---------------------------------------------------------------


@pytest.mark.parametrize("where", ["prepare", "processor", "batcher", "on_failed"])
async def test_a_drain_ends_what_hangs(where: str) -> None:
    source = MemoryStream(numbers(10), endless=True)
    pipeline = pipeline_of(source, on_failure=Drop(), drain_timeout=5)

    async def maybe(at: str) -> None:
        if at == where:
            await anyio.sleep_forever()

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None:
        await maybe("prepare")

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        await maybe("processor")
        if n_of(message) == 3:
            raise ValueError("no")

    @pipeline.batcher(size=1)
    async def load(batch: Batch[dict]) -> None:
        await maybe("batcher")

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        await maybe("on_failed")

    async with pipeline.start() as running:
        await anyio.sleep(1)
        running.stop()
        with anyio.fail_after(20):
            result = await running.wait()
    assert result.reason == "drain timeout"
    assert sum(result.settled.values()) + result.unsettled == result.received == 10
    assert source.stored.get("orders", -1) < 3 or where == "batcher"
