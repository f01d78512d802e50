"""Does a pipeline run that reads this stream under this reference? What can be seen from outside.

The stream protocol does not tell who consumes, so there are three ways to see a reader:

    its monitor      where one is asked for, and on 127.0.0.1:9464: sure, for that run
    the management   RabbitMQ's API with rabbitmq_stream_management: consumers by their name or
                     their connection's name; sure for flowstream pipelines of the default name
    its commits      the stored offset moves: on every broker, but only while there is work

An idle reader on a broker without that API, whose monitor is not asked, is not seen. The API is
that of the broker which is asked for offsets, or it is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from flowstream.cli.connection.management import Management, management_of
from flowstream.cli.exit_codes import CommandError
from flowstream.cli.readers.monitor_client import DEFAULT, Address, NoMonitor, shown, snapshot

if TYPE_CHECKING:
    from flowstream.client import Environment

T = TypeVar("T")

LOOK = 1.0
"""Seconds between two looks at the stored offsets."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who reads `streams` (partitions of `name`, or it alone) under `reference`?

    `monitors` are asked instead of the usual place; the management API is `management`, or
    beside the broker; offsets are watched for `watch` seconds.
    """

    url: str = field(repr=False)
    reference: str
    name: str
    streams: tuple[str, ...]
    monitors: tuple[Address, ...] = ()
    management: str | None = field(default=None, repr=False)
    watch: float = 6.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`seen` says how a reader was seen, in words; `asked` who listed all consumers, `blind` why
    nobody did."""

    seen: str | None
    asked: str = ""
    blind: str = ""


async def running_reader(environment: Environment, question: Question) -> Answer:
    """Looks in all three ways, the quick ones first.

    Raises CommandError where a monitor or a management API that was named does not answer as one.
    """
    found = await _by_monitor(question)
    if found is not None:
        return Answer(found)
    asked, blind = "", ""
    try:
        api = await management_of(environment, question.url, question.management)
        found = reader_among(await _consumers(api, question), question)
        if found is not None:
            return Answer(found)
        asked = f"the management API at {api.base}"
        if not await _answer(api, Management.sees_everything):
            asked, blind = "", f"{asked} shows {api.user!r} no consumers of other users"
    except CommandError as error:
        if question.management:
            raise
        blind = str(error)
    return Answer(await _by_commits(environment, question), asked, blind)


async def _by_monitor(question: Question) -> str | None:
    """A monitor that is down is no reader: the pipeline that it belongs to has ended."""
    from anyio import to_thread

    for address in question.monitors or (DEFAULT,):
        try:
            board = await to_thread.run_sync(snapshot, address, abandon_on_cancel=True)
        except NoMonitor:
            continue
        phase = phase_of(board, question)
        if phase is not None:
            return (
                f"the run at http://{shown(address)}/ has the pipeline {question.reference} "
                f"({phase})"
            )
    return None


def phase_of(board: Mapping[str, Any], question: Question) -> str | None:
    """The phase of the pipeline that is the reader, as a monitor's snapshot shows it. Pure."""
    for pipeline in board["pipelines"]:
        streams = {it["stream"] for it in pipeline["streams"]}
        mine = not streams or streams & {question.name, *question.streams}
        if pipeline["name"] == question.reference and mine:
            return str(pipeline["phase"])
    return None


async def _consumers(api: Management, question: Question) -> list[dict[str, Any]]:
    """All consumers of the virtual host."""
    from flowstream.client import StreamUrl

    vhost = StreamUrl.parse(question.url).virtual_host
    return await _answer(api, lambda it: it.stream_consumers(vhost))


async def _answer(api: Management, ask: Callable[[Management], T]) -> T:
    from anyio import to_thread

    return await to_thread.run_sync(api.answer, ask, abandon_on_cancel=True)


def reader_among(consumers: Iterable[Mapping[str, Any]], question: Question) -> str | None:
    """How the management API shows the reader, None if it does not. Pure."""
    for it in consumers:
        stream = it["queue"]["name"]
        name = it.get("properties", {}).get("name")
        connection = str(it.get("connection", ""))
        mine = connection.startswith(f"flowstream {question.reference}-")
        if stream in question.streams and (name == question.reference or (not name and mine)):
            where = dict(it["connection_details"]).get("name") or "a new connection"
            return f"the broker has a consumer of {stream} for {question.reference} ({where})"
    return None


async def _by_commits(environment: Environment, question: Question) -> str | None:
    import anyio

    async def stored() -> dict[str, int | None]:
        return {
            stream: await environment.query_offset(question.reference, stream)
            for stream in question.streams
        }

    before = await stored()
    end = anyio.current_time() + question.watch
    while (left := end - anyio.current_time()) > 0:
        await anyio.sleep(min(LOOK, left))
        for stream, offset in (await stored()).items():
            if offset != before[stream]:
                return (
                    f"{question.reference} stores offsets on {stream} now "
                    f"({_text(before[stream])} -> {_text(offset)})"
                )
    return None


def _text(offset: int | None) -> str:
    return "none" if offset is None else f"{offset:,}"
