"""What becomes of messages that were refused, or never confirmed: nobody fails in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowstream.client.connecting.settings import log
from flowstream.client.options import PublisherOptions
from flowstream.errors import SERVER_ERRORS, FlowstreamError, PublishFailed
from flowstream.texts import interrupts, printable, shown


class Failures:
    """Failures that nobody waits for go to `on_error`, else they are kept for the next `flush`."""

    def __init__(self, stream: str, options: PublisherOptions) -> None:
        self._stream = stream
        self._options = options
        self._first: PublishFailed | None = None
        self._count = 0
        self.cause: FlowstreamError | None = None

    def tell(self, failures: Sequence[tuple[int, int]]) -> None:
        """`(publishing id, code)` pairs; code 0 where no answer came."""
        if not failures:
            return
        error = self.error(failures)
        if self._options.on_error is not None:
            call(self._options.on_error, [number for number, _ in failures], error)
            return
        self._first = self._first or error
        self._count += len(failures)

    def error(self, failures: Sequence[tuple[int, int]]) -> PublishFailed:
        """The exception for these failures, about the first of them."""
        number, code = failures[0]
        if code:
            cls = SERVER_ERRORS.get(code)
            reason = f"was refused: {cls.__doc__ if cls else 'for an unknown reason'} (code {code})"
        elif self.cause is not None:
            reason = f"was not confirmed: {self.cause}"
        elif self._options.confirm_timeout is not None:
            reason = f"was not confirmed within {self._options.confirm_timeout:g} s"
        else:
            reason = "was not confirmed before the publisher was closed"
        text = f'message {number} for "{self._stream}" {reason}'
        if len(failures) > 1:
            text += f" ({len(failures)} messages in all)"
        return PublishFailed(text, publishing_id=number, code=code, stream=self._stream)

    def raise_kept(self) -> None:
        """Raises the first failure that was kept, once."""
        failure, count = self._first, self._count
        self._first, self._count = None, 0
        if failure is not None:
            if count > 1:
                failure.add_note(f"{count} messages failed since the last flush")
            raise failure


def call(callback: Callable[..., None], *args: object) -> None:
    """Calls the application back; what it raises is logged and goes no further."""
    try:
        callback(*args)
    except BaseException as error:
        if interrupts(error):
            raise
        log.error(
            "a callback of a publisher raised: %s", shown(callback), exc_info=printable(error)
        )
