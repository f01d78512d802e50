"""What the annotations of handlers may say, and what a wrong one is told."""

from __future__ import annotations

import functools
import re
import sys
import types
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pydantic
import pytest

from flowstream.errors import ConfigurationError, UnsupportedPayloadType
from flowstream.pipeline import Batch, IterableProducer, Message, Pipeline
from flowstream.pipeline.annotations import inspect_handler
from tests.support.pipelines import pipeline_of


class Order(pydantic.BaseModel):
    n: int


class NotAPayload:
    pass


async def keep(message: Message[dict]) -> None:
    """A handler that does nothing."""


def bad_annotations():
    async def model(message: Order) -> None: ...
    async def number(message: Message[int]) -> None: ...
    async def plain_class(message: Message[NotAPayload]) -> None: ...
    async def batch(message: Batch[dict]) -> None: ...

    return [model, number, plain_class, batch]


@pytest.mark.parametrize("handler", bad_annotations(), ids=lambda h: h.__name__)
def test_annotations_that_are_not_supported(handler):
    with pytest.raises(UnsupportedPayloadType, match=handler.__name__):
        pipeline_of(1).processor(handler)


def test_an_annotation_that_does_not_resolve():
    async def handler(message: Message[Missing]) -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(ConfigurationError, match="import or define it above the handler"):
        pipeline_of(1).processor(handler)


LAZY = pytest.mark.parametrize(
    "first_line",
    [
        "from __future__ import annotations",
        pytest.param(
            "# annotations are evaluated when somebody asks for them",
            marks=pytest.mark.skipif(sys.version_info < (3, 14), reason="since Python 3.14"),
        ),
    ],
    ids=["future", "lazy"],
)


def module(*lines: str) -> dict[str, Any]:
    """The names of a module that has these lines below its imports."""
    first, *others = lines
    text = "\n".join((first, "from flowstream import Batch, Message, Pipeline", *others))
    names = {"source": IterableProducer([b'{"n": 1}', b'{"n": 2}'])}
    exec(compile(text, "orders.py", "exec", dont_inherit=True), names)
    return names


@LAZY
@pytest.mark.parametrize(
    ("annotation", "missing"),
    [
        ("Message[Missing]", "Missing"),
        ("Message[Known | Missing]", "Missing"),
        ("Message[list[Missing]]", "Missing"),
        ("Message[missing.Order]", "missing"),
        ("Missing[Known]", "Missing"),
    ],
)
def test_a_type_that_is_not_there_yet_is_named(first_line, annotation, missing):
    with pytest.raises(ConfigurationError) as caught:
        module(
            first_line,
            "class Known(dict): ...",
            "pipeline = Pipeline('orders', source)",
            "@pipeline.processor",
            f"async def handle(message: {annotation}) -> None: ...",
            "class Missing(dict): ...",
        )
    assert (
        f"> processor: handle: the annotation {annotation!r} cannot be resolved: NameError: name "
        f"{missing!r} is not defined; import or define it above the handler, and not under "
        "`if TYPE_CHECKING:`"
    ) in str(caught.value)


@LAZY
async def test_only_the_type_of_the_payload_must_exist_when_a_module_runs(first_line):
    """Of resources and of what is returned, a type checker alone must know the types."""
    found = module(
        first_line,
        "from contextlib import asynccontextmanager",
        "@asynccontextmanager",
        "async def lifespan() -> Iterator[Database]:",
        "    yield []",
        "pipeline = Pipeline('orders', source, lifespan=lifespan)",
        "class Orders:",
        "    async def handle(self, message: Message[dict], seen: Database) -> Priced:",
        "        seen.append(message.data)",
        "pipeline.processor(Orders().handle)",
        "@pipeline.batcher",
        "async def load(batch: Batch[dict], /, seen: Database) -> Priced:",
        "    assert seen == batch.data",
    )
    assert (await found["pipeline"].run()).settled == {"ok": 2}


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the `def` itself fails before Python 3.14")
def test_an_annotation_that_cannot_be_evaluated():
    with pytest.raises(
        ConfigurationError, match="handle: its signature cannot be read: division by zero"
    ):
        module(
            "",
            "pipeline = Pipeline('orders', source)",
            "@pipeline.processor",
            "async def handle(message: Message[1 / 0]) -> None: ...",
        )


OrderT = TypeVar("OrderT", bound=Order)


async def test_a_payload_may_be_written_as_a_string_or_a_bound_type_variable():
    seen: list[object] = []

    async def quoted(message: Message["Order"]) -> None:  # noqa: UP037
        seen.append(message.data)

    async def bound(message: Message[OrderT]) -> None:
        seen.append(message.data)

    for handler in (quoted, bound):
        pipeline = Pipeline("typed", IterableProducer([b'{"n": 1}']))
        pipeline.processor(handler)
        await pipeline.run()
    assert seen == [Order(n=1), Order(n=1)]


def test_types_local_to_a_function_are_found():
    class Local(pydantic.BaseModel):
        n: int

    def declared(pipeline: Pipeline) -> object:
        return pipeline.declaration.first.signature.payload

    pipeline = pipeline_of(1)

    @pipeline.processor(concurrency=2)
    async def handler(message: Message[Local]) -> None: ...

    assert declared(pipeline) is Local
    pipeline = pipeline_of(1)

    @pipeline.processor
    async def bare(message: Message[Local]) -> None: ...

    assert declared(pipeline) is Local


def library() -> types.ModuleType:
    """A decorator of another library: a function of a module that knows none of our types."""
    module = types.ModuleType("retrying")
    source = """
import functools

def retry(function):
    @functools.wraps(function)
    async def wrapper(*arguments, **values):
        return await function(*arguments, **values)
    return wrapper
"""
    exec(source, vars(module))
    return module


@pytest.mark.parametrize("kind", ["function", "partial", "method", "cached"])
def test_annotations_below_the_decorator_of_a_library_are_found(kind):
    retry = library().retry

    async def handler(message: Message[Order]) -> None: ...

    class Shop:
        handle = retry(keep_order)

    decorated = {
        "function": lambda: retry(handler),
        "partial": lambda: functools.partial(retry(handler)),
        "method": lambda: Shop().handle,
        "cached": lambda: functools.lru_cache(handler),
    }[kind]()
    pipeline = pipeline_of(1)
    declare(pipeline, decorated)
    assert pipeline.declaration.first.signature.payload is Order


def declare(pipeline: Pipeline, handler: Any) -> None:
    """In the module of a user who does not know the types either."""
    exec("pipeline.processor(handler)", {"pipeline": pipeline, "handler": handler})


async def keep_order(self: object, message: Message[Order]) -> None: ...


def shapes():
    def none() -> None: ...
    def three(a, b, c) -> None: ...
    def keyword(message, *, db) -> None: ...
    def generator(message):
        yield message

    async def async_generator(message):
        yield message

    return [none, three, keyword, generator, async_generator, 5]


@pytest.mark.parametrize("handler", shapes(), ids=lambda it: getattr(it, "__name__", str(it)))
def test_handlers_of_the_wrong_shape(handler):
    with pytest.raises(ConfigurationError):
        pipeline_of(1).processor()(handler)


class Instance:
    async def __call__(self, message: Message[dict]) -> None: ...


class Descriptor(Instance):
    """As asgiref's `sync_to_async` makes them."""

    def __get__(self, owner: object, kind: type | None = None) -> Instance:
        return self


class Methods:
    def handle(self, message: Message[dict], unused: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("handler", "is_async"),
    [
        (keep, True),
        (Instance(), True),
        (functools.update_wrapper(Descriptor(), keep), True),
        (Methods().handle, False),
        (functools.partial(keep), True),
        (lambda message: None, False),
    ],
)
def test_kinds_of_handlers(handler, is_async):
    signature = inspect_handler(handler, Message, "here")
    assert signature.is_async is is_async
    assert signature.resource is None


def test_a_second_parameter_needs_a_lifespan():
    @asynccontextmanager
    async def lifespan():
        yield 1

    async def handler(message: Message[dict], db: int) -> None: ...

    pipeline = pipeline_of(1)
    pipeline.processor(handler)
    with pytest.raises(
        ConfigurationError, match="'db', but the pipeline has no lifespan= to fill it"
    ):
        pipeline.check()
    pipeline = pipeline_of(1, lifespan=lifespan)
    pipeline.processor(handler)
    pipeline.check()


class Orders:
    async def handle(self, message: Message[Order]) -> None: ...
    async def store(self, batch) -> None: ...


async def resources_first(db, message: Message[Order]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "begins"),
    [(Orders.handle, "self"), (Orders.store, "self"), (resources_first, "db")],
)
def test_the_message_is_the_first_parameter(handler, begins):
    """With a lifespan, a method without its object would get the resources as its message."""

    @asynccontextmanager
    async def lifespan():
        yield 1

    pipeline = pipeline_of(1, lifespan=lifespan)
    with pytest.raises(ConfigurationError, match=f"this one begins with '{begins}'"):
        pipeline.processor(handler)


def handlers_with_resources(seen: list[int]):
    async def by_name(message: Message[dict], db: int) -> None:
        seen.append(db)

    async def by_position(message: Message[dict], db: int, /) -> None:
        seen.append(db)

    def by_position_in_a_thread(message: Message[dict], db: int, /) -> None:
        seen.append(db)

    return [by_name, by_position, by_position_in_a_thread]


@pytest.mark.parametrize("which", range(3))
async def test_the_resources_fill_the_second_parameter(which):
    @asynccontextmanager
    async def lifespan():
        yield 7

    seen: list[int] = []
    pipeline = pipeline_of(2, lifespan=lifespan)
    pipeline.processor(handlers_with_resources(seen)[which])
    await pipeline.run()
    assert seen == [7, 7]


def test_the_payload_of_a_batcher_alone_must_be_decodable():
    async def keep_all(batch: Batch[NotAPayload]) -> None: ...

    pipeline = pipeline_of(1)
    pipeline.batcher(keep_all)
    with pytest.raises(UnsupportedPayloadType, match=r"batcher 'default': .*keep_all"):
        pipeline.check()


class Nothing: ...


def hints():
    async def direct(message: Order) -> None: ...
    async def batch(message: Batch[Order]) -> None: ...
    async def words(message: dict[str, int]) -> None: ...
    async def several(message: list[Message[Order]]) -> None: ...
    async def number(message: int) -> None: ...
    async def nothing(message: Nothing) -> None: ...

    order = "annotate the first parameter as Message[Order]"
    return [
        (direct, order), (batch, order), (several, order), (number, order), (nothing, order),
        (words, "annotate the first parameter as Message[dict[str, int]]"),
    ]  # fmt: skip


@pytest.mark.parametrize(("handler", "hint"), hints(), ids=lambda it: getattr(it, "__name__", ""))
def test_a_hint_names_the_type_of_the_user(handler, hint):
    with pytest.raises(UnsupportedPayloadType) as caught:
        pipeline_of(1).processor(handler)
    assert str(caught.value).endswith(hint)


def test_hints_for_other_handlers():
    def batch(batch: Message[Order]) -> None: ...
    def prepare(messages: Message[Order]) -> None: ...
    def on_failed(failure: Message[Order]) -> None: ...

    for declare, handler, hint in (
        (pipeline_of(1).batcher, batch, "Batch[Order]"),
        (pipeline_of(1).prepare, prepare, "list[Message[Order]]"),
        (pipeline_of(1).on_failed, on_failed, "Failure"),
    ):
        with pytest.raises(UnsupportedPayloadType, match=re.escape(f"parameter as {hint}") + "$"):
            declare(handler)


def test_a_hint_where_no_type_or_several_may_be_meant():
    source = "def bare(message): ...\ndef wrong(message: int): ...\n"
    two = "import pydantic\nclass A(pydantic.BaseModel): ...\nclass B(pydantic.BaseModel): ...\n"
    for text in (source, f"{two}\n{source}"):
        names: dict[str, object] = {"__name__": "shop"}
        exec(text, names)
        wanted = "Message[T], where T is the type of the payload"
        assert inspect_handler(names["bare"], Message, "x").wanted == f"message: {wanted}"
        with pytest.raises(UnsupportedPayloadType, match=re.escape(wanted)):
            inspect_handler(names["wrong"], Message, "x")


def test_what_a_handler_without_annotation_should_have_is_known():
    def bare(m) -> None: ...

    async def told(m: Message[Order]) -> None: ...

    assert inspect_handler(bare, Message, "x").wanted == "m: Message[Order]"
    assert inspect_handler(bare, Batch, "x").wanted == "m: Batch[Order]"
    assert inspect_handler(told, Message, "x").wanted == ""
    assert inspect_handler(lambda m: None, Message, "x").wanted == "m: Message[Order]"


def test_classes_of_the_module_that_cannot_be_asked_are_no_hint():
    class Odd(type):
        @property
        def __module__(cls):
            raise RuntimeError("no module")

    Strange = Odd("Strange", (), {})
    assert Strange is not None
    assert inspect_handler(lambda m: None, Message, "x").wanted.startswith("m: Message[")
