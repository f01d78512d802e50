"""Response codes become exceptions that say what was attempted, and on what."""

from __future__ import annotations

from flowstream.errors import SERVER_ERRORS, server_error
from flowstream.protocol import OK


def check(
    code: int, action: str, *, stream: str | None = None, reference: str | None = None
) -> None:
    """Raises the code's exception ("cannot <action>: ...") unless the code is OK."""
    if code == OK:
        return
    cls = SERVER_ERRORS.get(code)
    reason = (cls.__doc__ or "").strip() if cls else f"the server answered with code {code}"
    reason = reason[:1].lower() + reason[1:].rstrip(".")
    message = f"cannot {action}: {reason}"
    raise server_error(code, message, stream=stream, reference=reference)
