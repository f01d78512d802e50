"""Without a broker: a pipeline over a list, and decoding alone in a loop."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from flowstream.pipeline import IterableProducer, tuned_collector
from tests.benchmarks import shapes
from tests.benchmarks.bodies import bodies
from tests.benchmarks.measuring import BATCH, Stopwatch, Target

Measured = dict[str, Any]


async def pipeline(target: Target) -> Measured:
    """A whole run, with the garbage collector as `flowstream run` has it."""
    source = IterableProducer(bodies(target.messages))
    whole = shapes.declare(source, None, **target.options)
    watch = Stopwatch()
    result = await whole.run(tune_gc=True)
    measured = watch.stop(target.messages)
    assert result.settled.keys() <= {"ok", "dropped"}, result
    assert sum(result.settled.values()) == target.messages, result
    return measured


async def decode(target: Target) -> Measured:
    """`list(map(decode, bodies))`, a thousand at a time: the least that decoding can cost.

    The garbage collector is tuned as in a run, so that it is not what makes the difference.
    """
    payload = target.options["payload"]
    kind = shapes.payload_type(payload)
    if payload == "msgspec":
        import msgspec

        one: Any = msgspec.json.Decoder(kind).decode
    else:
        one = from_json if payload == "dict" else TypeAdapter(kind).validator.validate_json
    messages = bodies(target.messages)
    with tuned_collector():
        watch = Stopwatch()
        for first in range(0, len(messages), BATCH):
            list(map(one, messages[first : first + BATCH]))
        return watch.stop(len(messages))
