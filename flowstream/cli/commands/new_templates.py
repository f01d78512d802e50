"""What `flowstream new` writes; NAME stands for the module's name."""

SAMPLE = '{"id": 1, "value": 2.5}'
"""A message that the written pipeline takes."""

PIPELINE = '''"""Handle the messages of the stream `NAME`, a batch at a time."""

from flowstream import Batch, DeadLetter, Message, Pipeline, Retry, StreamProducer
from pydantic import BaseModel


class Event(BaseModel):
    """The JSON in a message's body."""

    id: int
    value: float


pipeline = Pipeline(
    "NAME",
    StreamProducer("NAME"),
    retry=Retry(attempts=3),
    on_failure=DeadLetter("NAME.dead"),
)


@pipeline.processor(concurrency=4, partition_by=lambda message: message.data.id)
async def check(message: Message[Event]) -> None:
    """See every message; to raise is to fail it, and it is tried again."""
    if message.data.value < 0:
        message.fail("value must not be negative", retry=False)


@pipeline.batcher(size=100, batch_timeout=1.0)
def store(batch: Batch[Event]) -> None:
    """Get what is well, in a worker thread; its offset is committed once this returns."""
    total = sum(event.value for event in batch.data)
    print(f"stored {batch.size}, {total:g} in total")
'''

TEST = '''"""Tests of the pipeline in memory and in virtual time: no broker, no waiting."""

from flowstream.testing import Crash, PipelineTester

import NAME


def test_good_events_are_stored_together() -> None:
    tester = PipelineTester(NAME.pipeline)
    result = tester.run_sync({"id": 1, "value": 2.5}, {"id": 2, "value": 4})
    assert result.ok
    assert [batch.size for batch in result.batches] == [2]
    assert result.committed == {"NAME": 1}


def test_bad_events_become_dead_letters() -> None:
    tester = PipelineTester(NAME.pipeline)
    result = tester.run_sync({"id": 1, "value": -1}, b"no JSON")
    assert result.statuses == ["dead_lettered", "dead_lettered"]
    assert result[0].reason == "value must not be negative"
    assert [letter.phase for letter in tester.dead_letters()] == ["process", "decode"]


def test_nothing_is_lost_in_a_crash() -> None:
    tester = PipelineTester(NAME.pipeline)
    first = tester.run_sync({"id": 1, "value": 1}, Crash(), {"id": 2, "value": 2})
    assert first.crashed
    assert first.committed == {}
    again = tester.run_sync()
    assert [event.id for event in again.data] == [1, 2]
'''
