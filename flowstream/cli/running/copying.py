"""Copies a stream into a super stream, each message once, and follows it.

The copy is a pipeline of its own, named after both streams. It commits what is copied, so the same
command continues after a stop or a crash.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from flowstream.cli.connection.broker_choice import broker_at
from flowstream.cli.connection.connect import connect
from flowstream.cli.event_loop import run_async
from flowstream.cli.exit_codes import CommandError, ExitCode, root_cause
from flowstream.cli.output.console import redrawn
from flowstream.cli.running.ending import ended, report_run
from flowstream.cli.running.supervisor import Plan, supervise
from flowstream.client import Environment
from flowstream.connectors import (
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
    once_reference,
    published,
)
from flowstream.errors import Halted
from flowstream.pipeline import Message, Pipeline, Place, Slice, discard_options
from flowstream.texts import type_name

SINK = "copy"
"""The name of the sink that copies."""
BATCH = 1_000
"""Messages that are published together."""
PAUSE = 0.1
"""Seconds that a smaller batch waits for more messages."""
IDLE = 2.0
"""Seconds without a new message after which a copy that does not follow ends."""
LONGEST_NAME = 240
"""Bytes of the name of a copy, at most: references and a connection have it and more in theirs."""
MOST_NAMED = 20
"""The largest number of messages that an error names one by one."""
ABOVE_OFFSETS = 1 << 61
"""Stored numbers are above this: a broker forgets an offset that retention has passed."""
COOKBOOK = "docs: move a stream to a super stream"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of `source` (a super stream if `shared`) to a super stream, by a field of JSON bodies.

    It follows the source until a signal comes, or, without `follow`, ends when all is copied.
    """

    source: str
    super_stream: str
    field: str
    shared: bool
    follow: bool

    @property
    def command(self) -> str:
        """The command that continues the copy."""
        words = ["flowstream", "super-streams", "create", self.super_stream,
                 "--from", self.source, "--key", self.field]  # fmt: skip
        return shlex.join(words if self.follow else [*words, "--until-idle"])


def copy_stream(copy: Copy, *, url: str, discard: tuple[Place, ...] = ()) -> NoReturn:
    """Copy to a super stream that exists, without `discard`. Exits with the code of the run."""
    pipeline = pipeline_of(copy.source, copy.super_stream, copy.field, shared=copy.shared)
    run_async(_check_key, copy, pipeline, url)
    plan = Plan(
        pipelines={pipeline.name: pipeline},
        broker=broker_at(url),
        until_idle=None if copy.follow else IDLE,
        live=redrawn(sys.stderr),
        discard=discard,
    )
    outcome = run_async(supervise, plan)
    outcome.errors = [_as_copy(error, copy) for error in outcome.errors]
    report_run(ended(outcome, plan), as_json=False, command=copy.command)


async def _check_key(copy: Copy, pipeline: Pipeline, url: str) -> None:
    """Refuse another field than the one by which messages are copied already.

    A number that stands for the field is stored in the source, as the offset of a reference.
    """
    name = f"{pipeline.name}?key"
    digest = hashlib.sha256(copy.field.encode(errors="surrogatepass")).digest()
    number = ABOVE_OFFSETS + int.from_bytes(digest[:6])
    async with connect(url) as environment:
        sources = await environment.partitions(copy.source) if copy.shared else [copy.source]
        stored = {source: await environment.query_offset(name, source) for source in sources}
        others = [source for source, found in stored.items() if found not in (None, number)]
        if others and await _has_copied(environment, pipeline, others, copy.super_stream):
            raise CommandError(
                f"--key {copy.field}: {copy.super_stream} has messages of {copy.source} that were "
                "copied by another field. By two fields, messages with one key would be in two "
                "partitions, and their order would be lost: give the same --key, or copy to "
                "another super stream",
                ExitCode.USAGE,
            )
        for source, found in stored.items():
            if found != number:
                await environment.store_offset_verified(name, source, number)


async def _has_copied(
    environment: Environment, pipeline: Pipeline, sources: list[str], super_stream: str
) -> bool:
    """Whether any partition has a message that the pipeline has copied from these streams."""
    reference = once_reference(pipeline.declaration.batchers[SINK].sink, pipeline.name, SINK)
    assert reference is not None
    partitions = await environment.partitions(super_stream)
    found = await published(environment, reference, sources, partitions)
    return any(each.last_offset is not None for each in found)


def _as_copy(error: BaseException, copy: Copy) -> BaseException:
    """A halt in the words of a copy, which has no handler that one could fix."""
    cause = root_cause(error)
    if not isinstance(cause, Halted):
        return error
    count = len(cause.messages)
    it = "this message" if count == 1 else f"these {count:,} messages"
    how = (
        f"Leave {it} out with {copy.command} {discard_options(cause.messages)}, or copy"
        if count <= MOST_NAMED
        else f"{count:,} messages cannot be copied. Check --key {copy.field}, or copy"
    )
    return CommandError(
        f"the copy halted at {cause.stream}@{cause.offset}: {cause.reason}. {how} with a pipeline "
        f"of your own, which can compute the key ({COOKBOOK})",
        ExitCode.HALTED,
    )


def pipeline_of(source: str, super_stream: str, field: str, *, shared: bool) -> Pipeline:
    """The pipeline that copies a stream, or with `shared` a super stream."""
    producer = (SuperStreamProducer if shared else StreamProducer)(source, offset="first")
    pipeline = Pipeline(name_of(source, super_stream), producer)

    @pipeline.processor(slices=True)
    async def bodies(part: Slice[Any]) -> list[bytes]:
        """Whole bodies, so that AMQP 1.0 messages keep their properties."""
        return part.raw

    sink = StreamSink(super_stream, key=key_from(field), exactly_once=True)
    pipeline.sink(SINK, sink, size=BATCH, batch_timeout=PAUSE)
    return pipeline


def key_from(field: str) -> Callable[[Message[Any]], str]:
    """A function that takes the key from a field of the JSON body."""

    def key(message: Message[Any]) -> str:
        try:
            found = json.loads(message.body)
        except (ValueError, RecursionError):
            raise LookupError(f"the body is not JSON, so it has no field {field!r}") from None
        if not isinstance(found, dict) or field not in found:
            raise LookupError(f"the body has no field {field!r}")
        value = found[field]
        if isinstance(value, bool) or not isinstance(value, str | int):
            found = "null" if value is None else type_name(value)
            raise LookupError(f"the field {field!r} is {found}; expected text or a whole number")
        return str(value)

    return key


async def is_shared(url: str, source: str) -> bool:
    """Whether the source is a super stream. Raises StreamDoesNotExist if it is neither."""
    async with connect(url) as environment:
        if await environment.stream_exists(source):
            return False
        await environment.partitions(source)
        return True


def check_copy(source: str, super_stream: str, keys: list[str] | None) -> str:
    """The field to copy by. Raises CommandError for options that do not fit each other."""
    if keys is None or len(keys) != 1:
        raise CommandError(
            "--from needs one --key: the field whose value selects the partition",
            ExitCode.USAGE,
        )
    if source == super_stream:
        raise CommandError(
            f"--from {source} is the super stream itself; give the copy another name",
            ExitCode.USAGE,
        )
    too_long = len(name_of(source, super_stream).encode(errors="surrogatepass")) - LONGEST_NAME
    if too_long > 0:
        raise CommandError(
            f"--from {source}: what is copied is recorded under the names of both streams, which "
            f"are too long together. Give the super stream a name that is {too_long} bytes shorter",
            ExitCode.USAGE,
        )
    return keys[0]


def name_of(source: str, super_stream: str) -> str:
    """The name of the pipeline that copies."""
    return f"{source}-to-{super_stream}"
