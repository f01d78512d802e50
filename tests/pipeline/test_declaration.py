"""Every mistake in a declaration is one clear error that names the place."""

from __future__ import annotations

import dataclasses
import functools
import re
from contextlib import asynccontextmanager

import pydantic
import pytest

from flowstream.errors import ConfigurationError, DuplicateName, UnsupportedPayloadType
from flowstream.pipeline import Batch, Failure, IterableProducer, Message, Pipeline, Retry
from flowstream.pipeline.annotations import inspect_handler
from flowstream.pipeline.options import BatcherOptions, PipelineOptions, ProcessorOptions
from flowstream.schema import options_of
from tests.support.pipelines import pipeline_of


class Order(pydantic.BaseModel):
    n: int


class NotAPayload:
    pass


async def keep(message: Message[dict]) -> None:
    """A handler that does nothing."""


async def store(batch: Batch[dict]) -> None:
    """A batch handler that does nothing."""


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"retry": 3}, "retry: expected a Retry"),
        ({"on_failure": "halt"}, "on_failure: expected a failure policy"),
        ({"max_in_flight": 0}, "max_in_flight: expected a whole number of at least 1"),
        ({"max_in_flight": True}, "max_in_flight: expected"),
        ({"max_in_flight_bytes": 1.5}, "max_in_flight_bytes: expected"),
        ({"drain_timeout": 0}, "drain_timeout: expected a number of seconds"),
        ({"drain_timeout": float("nan")}, "drain_timeout: expected a number of seconds"),
        ({"rate_limit": 5}, "rate_limit: expected a RateLimit"),
        ({"lifespan": 1}, "lifespan: expected"),
        ({"partition_by": "customer"}, "partition_by: expected a function"),
        ({"commit_every": 0}, "commit_every: expected"),
        ({"max_restarts": -1}, "max_restarts: expected"),
    ],
)
def test_pipeline_options(options, path):
    with pytest.raises(ConfigurationError, match=r"^pipeline 'test' > ") as caught:
        pipeline_of(1, **options)
    assert path in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 256, 5, None])
def test_pipeline_names(name):
    with pytest.raises(ConfigurationError, match="name"):
        Pipeline(name, IterableProducer([]))


def test_a_producer_is_needed():
    with pytest.raises(ConfigurationError, match="producer: expected a Producer"):
        Pipeline("test", "orders")  # type: ignore[arg-type]


def test_what_is_no_name_or_producer_need_not_be_printable():
    class Silent:
        def __repr__(self):
            raise RuntimeError("no words")

    with pytest.raises(ConfigurationError, match="name"):
        Pipeline(Silent(), IterableProducer([]))
    with pytest.raises(ConfigurationError, match="expected a Producer"):
        Pipeline("test", Silent())


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"max_demand": 0}, {"timeout": -1}, {"partition_by": 1}, {"processes": 1}],
)
def test_processor_options(options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"pipeline 'test' > processor > {name}: expected"):
        pipeline_of(1).processor(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0}, {"size": "many"}, {"size": (0, 1)}, {"size": (0,)}, {"max_bytes": 0},
        {"batch_timeout": 0}, {"concurrency": 0}, {"timeout": 0},
    ],
)  # fmt: skip
def test_batcher_options(options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"pipeline 'test' > batcher 'b' > {name}: expect"):
        pipeline_of(1).batcher("b", **options)


def test_unknown_options_are_named_with_those_there_are():
    with pytest.raises(ConfigurationError, match="batcher 'b' > batch_size: there is no such"):
        pipeline_of(1).batcher("b", batch_size=1)  # type: ignore[call-overload]


def test_a_batch_that_can_never_fill():
    with pytest.raises(ConfigurationError, match="can never fill while max_in_flight is 100"):
        pipeline_of(1, max_in_flight=100).batcher(size=101)


def test_two_batchers_of_one_name():
    pipeline = pipeline_of(1)
    pipeline.batcher(store)
    with pytest.raises(DuplicateName, match="two batchers named 'default'"):
        pipeline.batcher()(store)


def test_two_processors():
    pipeline = pipeline_of(1)
    pipeline.processor(keep)
    with pytest.raises(DuplicateName, match="has one processor"):
        pipeline.processor()(keep)


def test_no_processor():
    with pytest.raises(ConfigurationError, match="has no processor"):
        pipeline_of(1).start()


def test_decorators_give_the_function_back():
    pipeline = pipeline_of(1)
    assert pipeline.processor(keep) is keep
    assert pipeline.batcher("b", size=3)(store) is store


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

    with pytest.raises(ConfigurationError, match="cannot be resolved"):
        pipeline_of(1).processor(handler)


def test_types_local_to_a_function_are_found():
    class Local(pydantic.BaseModel):
        n: int

    pipeline = pipeline_of(1)

    @pipeline.processor(concurrency=2)
    async def handler(message: Message[Local]) -> None: ...

    assert pipeline.declaration.first.signature.payload is Local


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


class Methods:
    def handle(self, message: Message[dict], unused: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("handler", "is_async"),
    [
        (keep, True),
        (Instance(), True),
        (Methods().handle, False),
        (functools.partial(keep), True),
        (lambda message: None, False),
    ],
)
def test_kinds_of_handlers(handler, is_async):
    signature = inspect_handler(handler, Message, "here", depth=1)
    assert signature.is_async is is_async
    assert signature.resource is None


def test_a_second_parameter_needs_a_lifespan():
    @asynccontextmanager
    async def lifespan():
        yield 1

    async def handler(message: Message[dict], db: int) -> None: ...

    pipeline = pipeline_of(1)
    pipeline.processor(handler)
    with pytest.raises(ConfigurationError, match="'db', which lifespan= would fill"):
        pipeline.check()
    pipeline = pipeline_of(1, lifespan=lifespan)
    pipeline.processor(handler)
    pipeline.check()


def test_processes_need_a_plain_importable_function():
    def local(message: Message[dict]) -> None: ...

    with pytest.raises(ConfigurationError, match="top level of a module"):
        pipeline_of(1).processor(processes=True)(local)
    with pytest.raises(ConfigurationError, match="plain def"):
        pipeline_of(1).processor(processes=True)(keep)


async def undecorated():
    yield


@pytest.mark.parametrize("lifespan", [undecorated, keep, 5])
def test_a_lifespan_is_decorated(lifespan):
    with pytest.raises(ConfigurationError, match=r"> lifespan: expected .*@asynccontextmanager"):
        pipeline_of(1, lifespan=lifespan)


def test_prepare_and_on_failed_once():
    pipeline = pipeline_of(1)

    @pipeline.prepare
    async def prepare(messages: list[Message[dict]]) -> None: ...

    @pipeline.on_failed
    def failed(failure: Failure) -> None: ...

    with pytest.raises(DuplicateName):
        pipeline.prepare(prepare)
    with pytest.raises(DuplicateName):
        pipeline.on_failed(failed)


def test_sinks_are_batchers():
    with pytest.raises(ConfigurationError, match="sink 'out' > sink: expected a Sink"):
        pipeline_of(1).sink("out", "orders")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [PipelineOptions, ProcessorOptions, BatcherOptions])
def test_every_option_is_documented(kind):
    for option in options_of(kind).values():
        assert option.name
        assert option.default is not None or option.optional
        assert option.expected
        assert option.text


def test_topology_shows_stages_and_options():
    pipeline = pipeline_of(1, retry=Retry(attempts=2))
    pipeline.processor(concurrency=3)(keep)
    pipeline.batcher("b", size=7)(store)
    producer, processor, batcher = pipeline.topology().stages
    assert (producer.kind, processor.kind, batcher.kind) == ("producer", "processor", "batcher")
    assert (processor.concurrency, processor.handler) == (3, "keep")
    assert (batcher.name, batcher.options["size"]) == ("b", 7)


def test_options_are_changed_by_configuration():
    pipeline = pipeline_of(1, max_in_flight=1000)
    pipeline.batcher(size=500)(store)
    pipeline.configure(max_in_flight=600, drain_timeout=3)
    assert (pipeline.options.max_in_flight, pipeline.options.drain_timeout) == (600, 3)
    with pytest.raises(ConfigurationError, match="batcher 'default' > size: a batch of 500 can"):
        pipeline.configure(max_in_flight=499)
    with pytest.raises(ConfigurationError, match="max_inflight: there is no such option"):
        pipeline.configure(max_inflight=1)
    assert pipeline.options.max_in_flight == 600


def test_a_pipeline_needs_a_processor_or_a_batcher():
    with pytest.raises(ConfigurationError, match="no processor and no batcher; decorate a handler"):
        pipeline_of(1).check()


def test_a_batcher_alone_is_a_pipeline():
    pipeline = pipeline_of(1)
    pipeline.batcher(store)
    pipeline.check()
    assert pipeline.advice() == []
    assert [stage.kind for stage in pipeline.topology().stages] == ["producer", "batcher"]
    assert pipeline.declaration.first.signature.payload is dict


def test_batchers_without_a_processor():
    pipeline = pipeline_of(1)
    pipeline.batcher("a")(store)
    pipeline.prepare(lambda messages: None)
    with pytest.raises(ConfigurationError, match="prepare: it is called before a processor, and"):
        pipeline.check()
    pipeline.batcher("b")(store)
    with pytest.raises(ConfigurationError, match="nothing chooses between its batchers 'a', 'b'; "):
        pipeline.check()


def test_the_payload_of_a_batcher_alone_must_be_decodable():
    async def keep_all(batch: Batch[NotAPayload]) -> None: ...

    pipeline = pipeline_of(1)
    pipeline.batcher(keep_all)
    with pytest.raises(UnsupportedPayloadType, match=r"batcher 'default': .*keep_all"):
        pipeline.check()


def test_a_declaration_is_a_value():
    pipeline = pipeline_of(1)
    before = pipeline.declaration
    pipeline.processor(keep)
    pipeline.batcher(store)
    assert (before.processor, list(before.batchers)) == (None, [])
    with pytest.raises(TypeError):
        pipeline.declaration.batchers["more"] = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        pipeline.declaration.name = "other"


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
        assert inspect_handler(names["bare"], Message, "x", depth=0).wanted == f"message: {wanted}"
        with pytest.raises(UnsupportedPayloadType, match=re.escape(wanted)):
            inspect_handler(names["wrong"], Message, "x", depth=0)


def test_what_a_handler_without_annotation_should_have_is_known():
    def bare(m) -> None: ...

    async def told(m: Message[Order]) -> None: ...

    assert inspect_handler(bare, Message, "x", depth=1).wanted == "m: Message[Order]"
    assert inspect_handler(bare, Batch, "x", depth=1).wanted == "m: Batch[Order]"
    assert inspect_handler(told, Message, "x", depth=1).wanted == ""
    assert inspect_handler(lambda m: None, Message, "x", depth=1).wanted == "m: Message[Order]"


def test_classes_of_the_module_that_cannot_be_asked_are_no_hint():
    class Odd(type):
        @property
        def __module__(cls):
            raise RuntimeError("no module")

    Strange = Odd("Strange", (), {})
    assert Strange is not None
    assert inspect_handler(lambda m: None, Message, "x", depth=1).wanted.startswith("m: Message[")


@pytest.mark.parametrize(("option", "value"), [("telemetry", "metrics"), ("tune_gc", "no")])
def test_options_of_a_run(option, value):
    pipeline = pipeline_of(1)
    pipeline.processor(keep)
    with pytest.raises(ConfigurationError, match=f"^{option}='{value}': expected "):
        pipeline.start(**{option: value})
