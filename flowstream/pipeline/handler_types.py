"""What handlers take and return, as type checkers see it; annotations.py checks it when they run.

Each alias is generic over the type of the payload, and has two forms: a handler may have a second
parameter for the resources of `lifespan=`. `async def` and plain `def` are both handlers, so what
is returned may be awaitable.

    MessageHandler[Order]    takes a Message[Order]; what it returns is the new data: any object
    SliceHandler[Order]      takes a Slice[Order]; returns new data for each message, or nothing
    BatchHandler[Order]      takes a Batch[Order]; returns nothing, or the batch
    PrepareHook[Order]       takes a list[Message[Order]]; returns nothing, or the list
    FailureHook              takes a Failure; returns a policy, or nothing
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from flowstream.pipeline.batch import Batch
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.policies import FailurePolicy
from flowstream.pipeline.slice import Slice

T = TypeVar("T")
R = TypeVar("R")

Returns: TypeAlias = R | Awaitable[R]

MessageHandler: TypeAlias = Callable[[Message[T]], object] | Callable[[Message[T], Any], object]

SliceResult: TypeAlias = Returns[list[Any] | tuple[Any, ...] | Slice[Any] | None]
SliceHandler: TypeAlias = Callable[[Slice[T]], SliceResult] | Callable[[Slice[T], Any], SliceResult]

BatchResult: TypeAlias = Returns[Batch[Any] | None]
BatchHandler: TypeAlias = Callable[[Batch[T]], BatchResult] | Callable[[Batch[T], Any], BatchResult]

PrepareResult: TypeAlias = Returns[list[Message[Any]] | None]
PrepareHook: TypeAlias = (
    Callable[[list[Message[T]]], PrepareResult] | Callable[[list[Message[T]], Any], PrepareResult]
)

FailureResult: TypeAlias = Returns[FailurePolicy | None]
FailureHook: TypeAlias = (
    Callable[[Failure], FailureResult] | Callable[[Failure, Any], FailureResult]
)

ProcessHandler: TypeAlias = Callable[[Message[T]], object]
ProcessBatchHandler: TypeAlias = Callable[[Batch[T]], Batch[Any] | None]
"""With `processes=True`: a plain `def`, and no resources, which cannot go to other processes."""

MessageHandlerT = TypeVar("MessageHandlerT", bound=MessageHandler[Any])
SliceHandlerT = TypeVar("SliceHandlerT", bound=SliceHandler[Any])
BatchHandlerT = TypeVar("BatchHandlerT", bound=BatchHandler[Any])
PrepareHookT = TypeVar("PrepareHookT", bound=PrepareHook[Any])
FailureHookT = TypeVar("FailureHookT", bound=FailureHook)
ProcessHandlerT = TypeVar("ProcessHandlerT", bound=ProcessHandler[Any])
ProcessBatchHandlerT = TypeVar("ProcessBatchHandlerT", bound=ProcessBatchHandler[Any])


class DeclaresProcessor(Protocol):
    """What `@pipeline.processor(...)` gives: it declares the handler, and returns it as it is."""

    def __call__(self, handler: MessageHandlerT, /) -> MessageHandlerT: ...


class DeclaresSliceProcessor(Protocol):
    """What `@pipeline.processor(slices=True)` gives."""

    def __call__(self, handler: SliceHandlerT, /) -> SliceHandlerT: ...


class DeclaresProcessesProcessor(Protocol):
    """What `@pipeline.processor(processes=True)` gives: resources cannot go to other processes."""

    def __call__(self, handler: ProcessHandlerT, /) -> ProcessHandlerT: ...


class DeclaresBatcher(Protocol):
    """What `@pipeline.batcher(...)` gives: it declares the handler, and returns it as it is."""

    def __call__(self, handler: BatchHandlerT, /) -> BatchHandlerT: ...


class DeclaresProcessesBatcher(Protocol):
    """What `@pipeline.batcher(processes=True)` gives: a plain `def`, without resources."""

    def __call__(self, handler: ProcessBatchHandlerT, /) -> ProcessBatchHandlerT: ...
