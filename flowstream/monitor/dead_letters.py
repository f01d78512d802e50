"""Dead letters on the live page: listed, read and replayed. What reads them is handed in.

Lists and bodies are bounded, one request is served at a time, and each within `TIMEOUT` seconds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import anyio

from flowstream.errors import FlowstreamError
from flowstream.monitor.guard import Refused, check_site, checked_body, requester
from flowstream.monitor.http import Request, Response
from flowstream.texts import plural, text_of

MAX_LISTED = 50
"""Letters in a list: the newest of those that wait."""

MAX_BODY = 64 * 1024
"""Characters of a body that are shown."""

MAX_REPLAYED = 1000
"""Letters that one request may name."""

TIMEOUT = 20.0
"""Seconds that a list or a letter may take."""

_JSON = "application/json"
_log = logging.getLogger("flowstream.monitor")


class DeadLetters(Protocol):
    """Reads and replays dead letters. What it returns is JSON-ready; it raises FlowstreamError."""

    @property
    def streams(self) -> Mapping[str, str]:
        """The stream of dead letters of each pipeline that has one."""

    async def waiting(self, stream: str, most: int) -> dict[str, Any]:
        """`waiting`: how many were not replayed, and whether that is `exact` or the most there
        can be; `letters`: the newest of them in front, as many as `most`."""

    async def letter(self, stream: str, offset: int, most: int) -> dict[str, Any] | None:
        """One letter with `body` (text of at most `most` characters) and `traceback`; None where
        there is none."""

    async def replay(self, stream: str, offsets: Sequence[int] | None) -> dict[str, Any]:
        """Publish these letters, or all that wait, back to where they came from: `replayed` is how
        many by stream, `left` why others could not be, by offset."""


class DeadLetterEndpoint:
    """The answers to requests about dead letters; `control` allows replays, which `tell` logs."""

    def __init__(
        self, letters: DeadLetters, tell: Callable[[str, str], None], *, control: bool
    ) -> None:
        self._letters = letters
        self._tell = tell
        self._control = control
        self._turn = anyio.Semaphore(1)

    @property
    def streams(self) -> Mapping[str, str]:
        return self._letters.streams

    async def answer(self, request: Request) -> Response:
        """GET lists (with `offset`: one letter), POST replays."""
        try:
            if request.method == "POST":
                return await self._replay(request)
            if request.method not in {"GET", "HEAD"}:
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET or POST only")
            return await self._read(request)
        except Refused as refused:
            return refused.response()
        except TimeoutError:
            return _failed(HTTPStatus.GATEWAY_TIMEOUT, f"no answer within {TIMEOUT:.0f} s")
        except (FlowstreamError, OSError) as error:
            _log.warning("dead letters for the live page: %s", text_of(error))
            return _failed(HTTPStatus.BAD_GATEWAY, text_of(error))

    async def _read(self, request: Request) -> Response:
        check_site(request)
        stream = self._stream(request.query.get("pipeline"))
        with anyio.fail_after(TIMEOUT):
            async with self._turn:
                if "offset" not in request.query:
                    return _json(
                        {"stream": stream, **await self._letters.waiting(stream, MAX_LISTED)}
                    )
                offset = _offset(request.query["offset"])
                found = await self._letters.letter(stream, offset, MAX_BODY)
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"{stream} has no dead letter at offset {offset}")
        return _json(found)

    async def _replay(self, request: Request) -> Response:
        if not self._control:
            raise Refused(HTTPStatus.FORBIDDEN, "replays are off; see --http-control")
        asked = checked_body(request)
        stream = self._stream(asked.get("pipeline"))
        offsets = asked.get("offsets")
        if offsets != "waiting":
            _check_offsets(offsets)
        async with self._turn:
            # Not cut short by a browser that goes away: a replay is finished or the run has ended.
            done = await self._letters.replay(stream, None if offsets == "waiting" else offsets)
        count = sum(done["replayed"].values())
        what = f"{plural(count, 'dead letter')} of {stream}"
        self._tell(asked["pipeline"], f"{what} replayed by {requester(request)}")
        return _json(done)

    def _stream(self, pipeline: Any) -> str:
        stream = self.streams.get(pipeline) if isinstance(pipeline, str) else None
        if stream is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"no pipeline {pipeline!r} with dead letters runs")
        return stream


def _check_offsets(offsets: Any) -> None:
    good = isinstance(offsets, list) and 0 < len(offsets) <= MAX_REPLAYED
    if not good or not all(type(it) is int and 0 <= it < 1 << 62 for it in offsets):
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f'offsets: a list of 1 to {MAX_REPLAYED} offsets, or "waiting" for all',
        )


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Refused(HTTPStatus.BAD_REQUEST, f"offset {text[:40]!r}: expected a whole number")
    return int(text)


def _json(value: Any) -> Response:
    return Response(body=json.dumps(value).encode(), content_type=_JSON)


def _failed(status: HTTPStatus, why: str) -> Response:
    return Response(status, f"{why}\n".encode())
