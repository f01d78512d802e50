"""Where to begin in a stream: behind the stored offset, or where the declaration says. Pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flowstream.client import Offset
from flowstream.errors import OffsetTruncated

log = logging.getLogger("flowstream.connectors")


@dataclass(frozen=True, slots=True)
class Start:
    """`offset` is what to subscribe with; `lost` messages were truncated before it."""

    offset: Offset
    stored: int | None
    lost: int = 0


def where_to_start(
    stream: str,
    reference: str,
    *,
    stored: int | None,
    first: int | None,
    default: Offset,
    skip_truncated: bool,
) -> Start:
    """Behind what is stored under `reference`; where nothing is, `default`. `first` is the first
    retained offset.

    Raises OffsetTruncated when messages behind `stored` are gone, unless `skip_truncated`.
    """
    if stored is None:
        return Start(default, None)
    lost = 0 if first is None else max(first - stored - 1, 0)
    if lost and not skip_truncated:
        raise OffsetTruncated(
            f"the stored offset of {stream!r} is {stored} and its first message is {first}: "
            f"{lost} offsets were truncated before they were handled. Give the stream a longer "
            f'retention; to accept the loss, declare on_truncated="skip", or once: '
            f"flowstream offsets reset {reference} {stream} --to first",
            stream=stream,
            stored=stored,
            first=first if first is not None else 0,
        )
    if lost:
        log.warning(
            "%s: skipped %d truncated offsets behind %d", stream, lost, stored,
            extra={"stream": stream, "offset": stored},
        )  # fmt: skip
    return Start(stored + 1, stored, lost)
