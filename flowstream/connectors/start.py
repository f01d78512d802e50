"""Where a run begins in a stream: behind the stored offset, or where the declaration says. Pure.

The place becomes an offset, which is stored before the first message is handled: after a restart
"next" and "a minute ago" would be other offsets, and so would "first" after retention.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from flowstream.client import OffsetSpec
from flowstream.errors import OffsetTruncated

_log = logging.getLogger("flowstream.connectors")


@dataclass(frozen=True, slots=True)
class Start:
    """`offset` is the first one to handle, and `lost` messages before it were truncated.

    `known`: this offset follows from the stored one; otherwise `settled`, the offset before it,
    must be stored. `story` is the log's sentence about it.
    """

    offset: int
    known: bool
    lost: int = 0
    story: str = ""

    @property
    def settled(self) -> int:
        return self.offset - 1

    @property
    def committed(self) -> int | None:
        """The same as an offset of a message; None where it begins with the first of all."""
        return self.settled if self.offset else None


def story_of(reference: str, place: object, stored: int | None, start: Start) -> str:
    """`resumes at 4,201: stored offset 4,200 of reference orders`; else where it begins, and why.

    `place` is where the declaration begins if no offset is stored.
    """
    lost = f", behind {start.lost:,} offsets that retention removed" if start.lost else ""
    if stored is None:
        return f"begins at {_place(place, start)}{lost}: nothing stored under reference {reference}"
    if stored < 0:
        why = f"reference {reference} is before the first message"
        return f"resumes at {start.offset:,}{lost}: {why} (stored offset {stored})"
    return f"resumes at {start.offset:,}{lost}: stored offset {stored:,} of reference {reference}"


def _place(place: object, start: Start) -> str:
    """The place that the declaration names, and its offset now."""
    if isinstance(place, OffsetSpec):
        named = place.kind.name.lower()
        place = start.offset if named == "offset" else named
    if isinstance(place, int):
        return f"offset {start.offset:,}"
    if place == "first" and not start.offset:
        return "first"
    named = f"{place} ago" if isinstance(place, timedelta) else str(place)
    return f"{named}, which is offset {start.offset:,}"


def where_to_start(
    stream: str,
    reference: str,
    *,
    stored: int | None,
    asked: int,
    first: int | None,
    skip_truncated: bool,
) -> Start:
    """Behind the offset stored under `reference`, or at the offset `asked` for if none is stored.

    `first` is the first retained offset. Raises OffsetTruncated if retention removed messages from
    there on, unless `skip_truncated`.
    """
    offset = asked if stored is None else stored + 1
    lost = 0 if first is None else max(first - offset, 0)
    if not lost:
        return Start(offset, known=stored is not None)
    if not skip_truncated:
        raise truncated(stream, reference, offset - 1, offset + lost)
    _log.warning(
        "%s: skipped %d truncated offsets behind %d", stream, lost, offset - 1,
        extra={"stream": stream, "offset": offset - 1},
    )  # fmt: skip
    return Start(offset + lost, known=False, lost=lost)


def truncated(stream: str, reference: str, stored: int, first: int) -> OffsetTruncated:
    """The error of a pipeline that continues behind `stored` in a stream that begins at `first`."""
    lost = first - stored - 1
    were = "1 offset was" if lost == 1 else f"{lost} offsets were"
    return OffsetTruncated(
        f"offset {stored + 1} of {stream!r} is to be handled next, by the stored offset or else by "
        f"offset=, and the first message is {first}: {were} truncated before being handled. Give "
        'the stream a longer retention; to accept the loss, declare on_truncated="skip", or once: '
        f"flowstream offsets reset {reference} {stream} --to first",
        stream=stream,
        stored=stored,
        first=first,
    )


def beyond(
    stream: str, reference: str, *, stored: int, first: int | None, last: int | None
) -> str | None:
    """A warning about a stored offset behind the end of the stream, or None.

    `first` is the first retained offset and `last` that of the last message; None if there is none.
    Messages that retention removed count as part of the stream.
    """
    end = max(-1 if last is None else last, (first or 0) - 1)
    if stored <= end:
        return None
    where = "is empty" if last is None else f"ends at {last}"
    return (
        f"{stream!r} {where}, and offset {stored} is stored for it under the reference "
        f"{reference!r}: no message before {stored + 1} will be handled. The stream was deleted "
        "and created again, or something else stored that offset, such as a run left over from "
        "before. To begin with the first message, stop the run and: "
        f"flowstream offsets reset {reference} {stream} --to first"
    )
