"""What a run did and how to go on, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowstream.cli.output import one_line, plural, short_duration
from flowstream.errors import Halted
from flowstream.monitor import in_order
from flowstream.pipeline import discard_options, named

if TYPE_CHECKING:
    from flowstream.pipeline import RunResult

OUTCOMES = {
    "ok": "ok",
    "dropped": "dropped",
    "dead_lettered": "dead-lettered",
    "discarded": "discarded",
}


def summarize(
    result: RunResult, target: str, *, idle: bool, dead_letters: str | None = None
) -> list[str]:
    """Lines for people: what was handled, what is committed, and what to type next.

    `dead_letters` is the stream they went to.
    """
    lines = [_handled(result, idle=idle), *_committed(result)]
    if result.discarded:
        lines.append(f"  discarded on request: {', '.join(map(named, result.discarded))}")
    if result.unsettled:
        lines.append(
            f"  {plural(result.unsettled, 'message')} received and not settled: "
            "the next run gets them again"
        )
    if result.hung:
        lines.append(f"  still stuck in a handler: {', '.join(result.hung)}")
    if dead_letters is not None and result.settled.get("dead_lettered"):
        lines.append(f"  why some failed: flowstream dead-letters list {dead_letters}")
    lines += [
        f"  not discarded: {named(place)}: {why}" for place, why in result.not_discarded.items()
    ]
    lines.append(f"  go on with: flowstream run {target}")
    if isinstance(result.error, Halted) and result.error.messages:
        what = "message" if len(result.error.messages) == 1 else "messages"
        options = discard_options(result.error.messages)
        lines.append(f"  or without the failed {what}: flowstream run {target} {options}")
    return lines


def _handled(result: RunResult, *, idle: bool) -> str:
    reason = "idle" if idle and result.reason == "stopped" else result.reason
    head = f"{result.pipeline}: {reason} after {short_duration(result.seconds)}"
    if not result.handled:
        if result.unsettled or result.error is not None:
            return f"{head}, nothing settled"
        return f"{head}, nothing to do: no message was waiting"
    counts = ", ".join(
        f"{count:,} {OUTCOMES.get(outcome, outcome)}"
        for outcome, count in in_order(result.settled).items()
    )
    retried = f", {result.retried:,} tried again" if result.retried else ""
    return f"{head}, {plural(result.handled, 'message')} handled ({counts}{retried})"


def _committed(result: RunResult) -> list[str]:
    return [
        f"  {stream}: committed offset {'none' if offset is None else format(offset, ',')}"
        for stream, offset in sorted(result.committed.items())
    ]


def as_json(result: RunResult, target: str) -> dict[str, Any]:
    """The same for programs."""
    return {
        "pipeline": result.pipeline,
        "target": target,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "received": result.received,
        "handled": result.handled,
        "settled": dict(result.settled),
        "failed": result.failed,
        "retried": result.retried,
        "unsettled": result.unsettled,
        "committed": dict(result.committed),
        "hung": list(result.hung),
        "discarded": [named(place) for place in result.discarded],
        "not_discarded": {named(place): why for place, why in result.not_discarded.items()},
        "halted_at": (
            [named(place) for place in result.error.messages]
            if isinstance(result.error, Halted)
            else []
        ),
        "error": None if result.error is None else one_line(str(result.error)),
    }
