"""A pipeline is declared by decorators, and refuses what cannot run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flowstream.errors import ConfigurationError, DuplicateName
from flowstream.pipeline import Batch, Failure, IterableProducer, Message, Pipeline, Retry
from tests.support.pipelines import pipeline_of


async def keep(message: Message[dict]) -> None:
    """A handler that does nothing."""


async def store(batch: Batch[dict]) -> None:
    """A batch handler that does nothing."""


@pytest.mark.parametrize("name", ["", "x" * 256, 5, None])
def test_pipeline_names(name):
    with pytest.raises(ConfigurationError, match="name"):
        Pipeline(name, IterableProducer([]))


def test_a_producer_is_needed():
    with pytest.raises(ConfigurationError, match=r"producer=.*: expected a Producer"):
        Pipeline("test", "orders")  # type: ignore[arg-type]


def test_what_is_no_name_or_producer_need_not_be_printable():
    class Silent:
        def __repr__(self):
            raise RuntimeError("no words")

    with pytest.raises(ConfigurationError, match="name"):
        Pipeline(Silent(), IterableProducer([]))
    with pytest.raises(ConfigurationError, match="expected a Producer"):
        Pipeline("test", Silent())


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


async def undecorated():
    yield


@asynccontextmanager
async def of_an_app(app: object) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("lifespan", [undecorated, keep, 5, of_an_app])
def test_a_lifespan_is_decorated(lifespan):
    with pytest.raises(ConfigurationError, match=r"> lifespan=.*: expected .*@asynccontextmanager"):
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
    with pytest.raises(ConfigurationError, match=r"sink 'out' > sink=.*: expected a Sink"):
        pipeline_of(1).sink("out", "orders")  # type: ignore[arg-type]


def test_topology_shows_stages_and_options():
    pipeline = pipeline_of(1, retry=Retry(attempts=2))
    pipeline.processor(concurrency=3)(keep)
    pipeline.batcher("b", size=7)(store)
    producer, processor, batcher = pipeline.topology().stages
    assert (producer.kind, processor.kind, batcher.kind) == ("producer", "processor", "batcher")
    assert (processor.concurrency, processor.handler) == (3, "keep")
    assert (batcher.name, batcher.options["size"]) == ("b", 7)


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
    with pytest.raises(ConfigurationError, match="prepare: it runs before the processor, but"):
        pipeline.check()
    pipeline.batcher("b")(store)
    with pytest.raises(
        ConfigurationError, match="a processor is needed to choose between the batchers 'a', 'b'; "
    ):
        pipeline.check()
