"""Every option is checked, documented and changed by configuration."""

from __future__ import annotations

import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import Batch, Message
from flowstream.pipeline.options import BatcherOptions, PipelineOptions, ProcessorOptions
from flowstream.schema import options_of
from tests.support.pipelines import pipeline_of


async def keep(message: Message[dict]) -> None:
    """A handler that does nothing."""


async def store(batch: Batch[dict]) -> None:
    """A batch handler that does nothing."""


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"retry": 3}, "retry=3: expected a Retry"),
        ({"on_failure": "halt"}, "on_failure='halt': expected a failure policy"),
        ({"max_in_flight": 0}, "max_in_flight=0: expected a whole number of at least 1"),
        ({"max_in_flight": True}, "max_in_flight=True: expected"),
        ({"max_in_flight_bytes": 1.5}, "max_in_flight_bytes=1.5: expected"),
        ({"drain_timeout": 0}, "drain_timeout=0: expected a number of seconds"),
        ({"drain_timeout": float("nan")}, "drain_timeout=nan: expected a number of seconds"),
        ({"rate_limit": 5}, "rate_limit=5: expected a RateLimit"),
        ({"lifespan": 1}, "lifespan=1: expected"),
        ({"partition_by": "customer"}, "partition_by='customer': expected a function"),
        ({"commit_every": 0}, "commit_every=0: expected"),
        ({"max_restarts": -1}, "max_restarts=-1: expected"),
    ],
)
def test_pipeline_options(options, path):
    with pytest.raises(ConfigurationError, match=r"^pipeline 'test' > ") as caught:
        pipeline_of(1, **options)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"max_demand": 0}, {"timeout": -1}, {"partition_by": 1}, {"processes": 1}],
)
def test_processor_options(options):
    (name,) = options
    with pytest.raises(
        ConfigurationError, match=f"pipeline 'test' > processor > {name}=.*: expected"
    ):
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
    with pytest.raises(ConfigurationError, match=f"pipeline 'test' > batcher 'b' > {name}=.*: "):
        pipeline_of(1).batcher("b", **options)


def test_unknown_options_are_named_with_those_there_are():
    with pytest.raises(ConfigurationError, match="batcher 'b' > batch_size=1: there is no such"):
        pipeline_of(1).batcher("b", batch_size=1)  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", [PipelineOptions, ProcessorOptions, BatcherOptions])
def test_every_option_is_documented(kind):
    for option in options_of(kind).values():
        assert option.name
        assert option.default is not None or option.optional
        assert option.expected
        assert option.text


def test_options_are_changed_by_configuration():
    pipeline = pipeline_of(1, max_in_flight=1000)
    pipeline.batcher(size=500)(store)
    pipeline.configure(max_in_flight=600, drain_timeout=3)
    assert (pipeline.options.max_in_flight, pipeline.options.drain_timeout) == (600, 3)
    with pytest.raises(ConfigurationError, match="batcher 'default' > size=500: a batch can"):
        pipeline.configure(max_in_flight=499)
    with pytest.raises(ConfigurationError, match="max_inflight=1: there is no such option"):
        pipeline.configure(max_inflight=1)
    assert pipeline.options.max_in_flight == 600


@pytest.mark.parametrize(("option", "value"), [("telemetry", "metrics"), ("tune_gc", "no")])
def test_options_of_a_run(option, value):
    pipeline = pipeline_of(1)
    pipeline.processor(keep)
    with pytest.raises(ConfigurationError, match=f"^{option}='{value}': expected "):
        pipeline.start(**{option: value})
