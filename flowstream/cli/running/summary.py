"""The summary of a run: what it did, and how to continue."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from flowstream.cli.output.console import REPORT_LIMIT, short_duration
from flowstream.errors import Halted
from flowstream.monitor import outcomes_in_order
from flowstream.pipeline import RunResult, discard_options, named
from flowstream.texts import clipped, plural, text_of

OUTCOMES = {
    "ok": "ok",
    "dropped": "dropped",
    "dead_lettered": "dead-lettered",
    "discarded": "discarded",
}
FATES = {
    "dead_lettered": "dead-lettered",
    "discarded": "discarded",
    "halted": "halted",
    "retried": "retried",
}
"""What happened to failed messages, by the field of `Reason`."""
MOST_DISCARDED = 100
"""The largest number of messages that a command to continue without them names."""
REASONS = 5
"""The number of reasons in a line. The others are counted."""
STREAMS = 20
"""The number of streams whose committed offset is shown. The others are counted."""
REASON_LIMIT = 120
"""Characters of a reason."""
NO_MESSAGES = ("commit", "crash", "on_failed")
"""Phases in which something else than a message fails."""


def summarize(
    result: RunResult,
    target: str,
    *,
    idle: bool,
    dead_letters: str | None = None,
    command: str | None = None,
) -> list[str]:
    """The lines of a summary: what was handled, what is committed, and the next command.

    `dead_letters` is the dead-letter stream of the pipeline. `command` is what continues it, if
    that is not `flowstream run`.
    """
    lines = [_handled(result, idle=idle), *_failures(result), *_committed(result)]
    if result.discarded:
        lines.append(f"  discarded on request: {', '.join(map(named, result.discarded))}")
    if result.unsettled:
        lines.append(
            f"  {plural(result.unsettled, 'message')} received and not settled: "
            f"the next run gets {'it' if result.unsettled == 1 else 'them'} again"
        )
    if result.repeated:
        lines.append(
            f"  {plural(result.repeated, 'message')} handled after an unsettled one: "
            f"the next run gets {'it' if result.repeated == 1 else 'them'} again, too"
        )
    if result.hung:
        lines.append(f"  still stuck in a handler: {', '.join(result.hung)}")
    if dead_letters is not None and result.settled.get("dead_lettered"):
        lines.append(f"  to see failed messages: flowstream dead-letters list {dead_letters}")
    lines += [
        f"  not discarded: {named(place)}: {why}" for place, why in result.not_discarded.items()
    ]
    command = command or f"flowstream run {target}"
    lines.append(f"  to continue: {command}")
    if isinstance(result.error, Halted) and 0 < len(result.error.messages) <= MOST_DISCARDED:
        what = "message" if len(result.error.messages) == 1 else "messages"
        options = discard_options(result.error.messages)
        lines.append(f"  to continue without the failed {what}: {command} {options}")
    return lines


def _handled(result: RunResult, *, idle: bool) -> str:
    reason = "idle" if idle and result.reason == "stopped" else result.reason
    head = f"{result.pipeline}: {reason} after {short_duration(result.seconds)}"
    if not result.handled:
        if result.unsettled or result.error is not None:
            return f"{head}, nothing settled"
        return (
            f"{head}, nothing to do: there was no message"
            if idle
            else f"{head}, no message arrived"
        )
    counts = ", ".join(
        f"{count:,} {OUTCOMES.get(outcome, outcome)}"
        for outcome, count in outcomes_in_order(result.settled).items()
    )
    retried = f", {result.retried:,} retried" if result.retried else ""
    return f"{head}, {plural(result.handled, 'message')} handled ({counts}{retried})"


def warning(result: RunResult) -> str | None:
    """The warning for a run without an error in which every message failed."""
    good = result.settled.get("ok", 0) + result.settled.get("dropped", 0)
    if good or not result.handled or not result.failed:
        return None
    return (
        f"warning: {result.pipeline}: no message was handled successfully: "
        f"all {result.handled:,} failed"
    )


def _failures(result: RunResult) -> list[str]:
    """What happened to failed messages, with the reasons."""
    lines = []
    for fate, called in FATES.items():
        reasons: Counter[str] = Counter()
        for reason in result.reasons:
            reasons[reason.label] += getattr(reason, fate)
        if total := reasons.total():
            lines.append(f"  {total:,} {called}: {_listed(reasons)}")
    broken = Counter(
        {r.label: r.attempts for r in result.reasons if r.phase in NO_MESSAGES and not r.halted}
    )
    if broken:
        lines.append(f"  other failures: {_listed(broken)}")
    return lines


def _listed(reasons: Counter[str]) -> str:
    """`2 ZeroDivisionError in load, 1 amount must be positive`."""
    found = [(label, count) for label, count in reasons.most_common() if count]
    shown = found if len(found) == REASONS + 1 else found[:REASONS]  # one more takes no more room
    parts = [f"{count:,} {clipped(label, REASON_LIMIT)}" for label, count in shown]
    if rest := sum(count for _, count in found[len(shown) :]):
        parts.append(f"{rest:,} for {len(found) - len(shown)} other reasons")
    return ", ".join(parts)


def _committed(result: RunResult) -> list[str]:
    """The committed offset of each stream, by number for partitions; the reasons stay in sight."""
    found = sorted(result.committed.items(), key=lambda it: _by_number(it[0]))
    lines = [
        f"  {stream}: committed offset {'none' if offset is None else format(offset, ',')}"
        for stream, offset in found[:STREAMS]
    ]
    if rest := found[STREAMS:]:
        known = sum(offset is not None for _, offset in rest)
        lines.append(
            f"  {len(rest):,} more streams, {known:,} of them with a committed offset; "
            "--json and `flowstream lag` list all"
        )
    return lines


def _by_number(stream: str) -> tuple[str, int]:
    """`orders-9` before `orders-10`."""
    name, _, number = stream.rpartition("-")
    decimal = number.isascii() and number.isdecimal() and len(number) < 10
    return (name, int(number)) if decimal else (stream, -1)


def as_json(result: RunResult, target: str) -> dict[str, Any]:
    """The summary as JSON."""
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
        "repeated": result.repeated,
        "reasons": [asdict(reason) for reason in result.reasons],
        "committed": dict(result.committed),
        "hung": list(result.hung),
        "discarded": [named(place) for place in result.discarded],
        "not_discarded": {named(place): why for place, why in result.not_discarded.items()},
        "halted_at": (
            [named(place) for place in result.error.messages]
            if isinstance(result.error, Halted)
            else []
        ),
        "error": None if result.error is None else text_of(result.error, REPORT_LIMIT),
    }
