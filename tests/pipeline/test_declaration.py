"""Every mistake in a declaration is one clear error that names the place."""

from __future__ import annotations

import dataclasses

import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import Batch, Message
from tests.support.pipelines import pipeline_of


async def keep(message: Message[dict]) -> None:
    """A handler that does nothing."""


async def store(batch: Batch[dict]) -> None:
    """A batch handler that does nothing."""


def test_a_batch_that_can_never_fill():
    with pytest.raises(ConfigurationError, match="can never fill while max_in_flight is 100"):
        pipeline_of(1, max_in_flight=100).batcher(size=101)


def test_processes_need_a_plain_importable_function():
    def local(message: Message[dict]) -> None: ...

    with pytest.raises(ConfigurationError, match="top level of a module"):
        pipeline_of(1).processor(processes=True)(local)
    with pytest.raises(ConfigurationError, match="plain def"):
        pipeline_of(1).processor(processes=True)(keep)


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
