"""The texts of a run's log records at level info. Pure.

There is one record for each event that happens once or rarely: the start, where streams are
resumed, controls, the steps of a drain, the end. There is none per message or commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowstream.pipeline.declaration import Declaration
from flowstream.pipeline.state.run_state import RunState
from flowstream.texts import describe, plural, text_of, type_name

PLACES = 10
"""How many streams with their offsets a record names."""
PROGRAM = "the program"
"""Who controlled a run, if the caller gave no name."""
CANCELLED = "a cancellation"
"""What ended a run that its program cancelled, such as by a timeout around it."""


def declared(declaration: Declaration) -> str:
    """`StreamProducer of orders -> processor (4 workers) -> load (2 workers); ...`: the stages."""
    options = declaration.options
    reads = declaration.producer.reads()
    source = type_name(declaration.producer) + (f" of {', '.join(reads)}" if reads else "")
    batchers = [
        _stage(each.options) + ("" if each.sink is None else f" into {type_name(each.sink)}")
        for each in declaration.batchers.values()
    ]
    processor = declaration.processor
    way = [source, "" if processor is None else _stage(processor.options), " and ".join(batchers)]
    retry = "no retry" if options.retry is None else plural(options.retry.attempts, "attempt")
    writes = options.on_failure.writes()
    policy = type_name(options.on_failure) + (f" into {', '.join(writes)}" if writes else "")
    limited = "" if options.rate_limit is None else f"; {limit(options.rate_limit)}"
    return (
        f"{' -> '.join(each for each in way if each)}; failures: {retry}, then {policy}; at most "
        f"{options.max_in_flight:,} messages in flight{limited}"
    )


def _stage(options: Any) -> str:
    workers = f"{options.concurrency} worker{'' if options.concurrency == 1 else 's'}"
    kind = "processes" if options.processes else ""
    return f"{options.name} ({workers}{' in ' + kind if kind else ''})"


def why_draining(state: RunState, stopped_by: str) -> str:
    """Why the run ends."""
    if state.error is not None:
        return f"after {type_name(state.error)}"
    if stopped_by:
        return f"stopped by {stopped_by}"
    return "stopped" if state.stopping else "its source has ended"


def limit(limit: Any) -> str:
    """A rate limit in words."""
    if limit is None:
        return "the rate limit was removed"
    units = ((limit.messages, "messages"), (limit.bytes, "bytes"))
    most = " and ".join(f"{value:,g} {unit}" for value, unit in units if value is not None)
    return f"limited to {most} every {limit.interval:g} s"


def places(offsets: Mapping[str, int | None]) -> str:
    """`orders-0@41, orders-1@7 and 12 more streams`."""
    known = sorted((stream, offset) for stream, offset in offsets.items() if offset is not None)
    named = ", ".join(f"{stream}@{offset:,}" for stream, offset in known[:PLACES])
    return named + (f" and {len(known) - PLACES:,} more streams" if len(known) > PLACES else "")


def ended(state: RunState, reason: str, stopped_by: str, seconds: float) -> str:
    """`(halted) after 12.3 s: 5,000 received, 4,999 ok, 1 not settled; Halted: ...`."""
    counts = [f"{state.received:,} received"]
    outcomes = sorted(state.counts.items())
    counts += [f"{count:,} {outcome.replace('_', '-')}" for outcome, count in outcomes if count]
    for count, word in ((state.retried, "retried"), (state.unsettled, "not settled")):
        if count:
            counts.append(f"{count:,} {word}")
    by = f" by {stopped_by}" if reason in ("stopped", "aborted") and stopped_by else ""
    why = "its source has ended" if reason == "ended" else reason
    error = "" if state.error is None else f"; {describe(state.error, 300)}"
    return f"({why}{by}) after {seconds:.1f} s: {', '.join(counts)}{error}"


def control(action: str, detail: str) -> str:
    """A control of a run, in words."""
    words = {"pause": "paused", "resume": "resumed", "stop": "asked to stop", "abort": "aborted"}
    return words.get(action, detail)


def said(by: str | None) -> str:
    """Who did it, shortened to a bounded length."""
    return PROGRAM if by is None else text_of(by, 100)
