"""/api/dead-letters: list, read and replay dead letters. What reads them is passed in.

Lists and bodies are bounded, one request is served at a time, and reading takes at most `TIMEOUT`
seconds.
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
"""Dead letters in a list: the newest of those that were not replayed."""

MAX_BODY = 64 * 1024
"""Characters of a body in a response."""

MAX_REPLAYED = 1000
"""Dead letters that one request may name."""

TIMEOUT = 20.0
"""Seconds that reading a list or one dead letter may take."""

_JSON = "application/json"
_log = logging.getLogger("flowstream.monitor")


class DeadLetters(Protocol):
    """Reads and replays dead letters, as JSON-ready data. Raises FlowstreamError."""

    @property
    def streams(self) -> Mapping[str, str]:
        """The dead-letter stream of each pipeline that has one."""

    async def waiting(self, stream: str, most: int) -> dict[str, Any]:
        """`waiting` is how many were not replayed, `exact` whether that is exact or an upper bound;
        `letters` has the newest of them first, at most `most`."""

    async def letter(self, stream: str, offset: int, most: int) -> dict[str, Any] | None:
        """One dead letter with its `body` (at most `most` characters) and `traceback`; None if the
        stream has none at this offset."""

    async def replay(self, stream: str, offsets: Sequence[int] | None) -> dict[str, Any]:
        """Publish these dead letters, or all that were not replayed, to their original streams.

        `replayed` has the number for each stream, `left` the reason for each offset that failed.
        """


class DeadLetterEndpoint:
    """Answers requests for dead letters. `control` allows replays; `log_event` records them."""

    def __init__(
        self, letters: DeadLetters, log_event: Callable[[str, str], None], *, control: bool
    ) -> None:
        self._letters = letters
        self._log_event = log_event
        self._control = control
        self._one_at_a_time = anyio.Semaphore(1)

    @property
    def streams(self) -> Mapping[str, str]:
        return self._letters.streams

    async def answer(self, request: Request) -> Response:
        """The response: GET lists, or reads the one at `offset`; POST replays."""
        try:
            if request.method == "POST":
                return await self._replay(request)
            if request.method not in {"GET", "HEAD"}:
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET or POST only")
            return await self._read(request)
        except Refused as refused:
            return refused.response()
        except TimeoutError:
            return _failed(
                HTTPStatus.GATEWAY_TIMEOUT, f"the broker did not answer within {TIMEOUT:.0f} s"
            )
        except (FlowstreamError, OSError) as error:
            _log.warning("dead letters for the live page: %s", text_of(error))
            return _failed(HTTPStatus.BAD_GATEWAY, text_of(error))

    async def _read(self, request: Request) -> Response:
        check_site(request)
        stream = self._stream(request.query.get("pipeline"))
        with anyio.fail_after(TIMEOUT):
            async with self._one_at_a_time:
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
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "replays are disabled; start the run with --http-control to allow them",
            )
        asked = checked_body(request)
        stream = self._stream(asked.get("pipeline"))
        offsets = asked.get("offsets")
        if offsets != "waiting":
            _check_offsets(offsets)
        async with self._one_at_a_time:
            # Without a timeout: a replay is finished, also if the browser disconnects.
            done = await self._letters.replay(stream, None if offsets == "waiting" else offsets)
        count = sum(done["replayed"].values())
        what = f"{plural(count, 'dead letter')} of {stream}"
        self._log_event(asked["pipeline"], f"{what} replayed by {requester(request)}")
        return _json(done)

    def _stream(self, pipeline: Any) -> str:
        stream = self.streams.get(pipeline) if isinstance(pipeline, str) else None
        if stream is None:
            raise Refused(
                HTTPStatus.NOT_FOUND, f"no running pipeline {pipeline!r} has a dead-letter stream"
            )
        return stream


def _check_offsets(offsets: Any) -> None:
    good = isinstance(offsets, list) and 0 < len(offsets) <= MAX_REPLAYED
    if not good or not all(type(it) is int and 0 <= it < 1 << 62 for it in offsets):
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f'offsets: expected a list of 1 to {MAX_REPLAYED} offsets, or "waiting" for all',
        )


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Refused(HTTPStatus.BAD_REQUEST, f"offset={text[:40]!r}: expected a whole number")
    return int(text)


def _json(value: Any) -> Response:
    return Response(body=json.dumps(value).encode(), content_type=_JSON)


def _failed(status: HTTPStatus, why: str) -> Response:
    return Response(status, f"{why}\n".encode())
