"""Results that workers report, and their sum: one result for each pipeline, as for one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import typer

from flowstream.cli.app import usage_error
from flowstream.cli.exit_codes import ExitCode, root_cause
from flowstream.cli.output.console import REPORT_LIMIT, error_line
from flowstream.cli.pipelines.stream_topology import topology_of
from flowstream.cli.running.supervisor import Outcome
from flowstream.cli.workers.decisions import Verdict
from flowstream.cli.workers.link import Link, ParentEnded
from flowstream.cli.workers.messages import Message
from flowstream.errors import Halted, OutcomeUnknown, SinkUnavailable
from flowstream.pipeline import Pipeline, Reason, RunResult, merged_reasons
from flowstream.texts import is_a, text_of


@dataclass(slots=True)
class Ended:
    """The end of a run, of one process or of several: what its summary and exit code need.

    `unopened` says how pipelines ended that were not running yet. `errors` are exceptions of this
    process, `reported` is what a worker reported.
    """

    results: Mapping[str, RunResult] = field(default_factory=dict)
    idle: Collection[str] = ()
    unopened: Mapping[str, str] = field(default_factory=dict)
    dead_letters: Mapping[str, str | None] = field(default_factory=dict)
    errors: Sequence[BaseException] = ()
    reported: Verdict | None = None
    forced: bool = False
    deaths: int = 0
    """How often a worker process died."""


OUTAGES = frozenset({ExitCode.CONNECTION, ExitCode.TIMEOUT})
"""Errors of a worker while the broker is away. A sink has errors of its own for that."""

WORST = ("failed", "halted", "drain timeout", "aborted", "stopped", "ended")
"""Ends of a run, the worst first."""


# -- in the worker


@contextmanager
def reporting(link: Link | None) -> Iterator[None]:
    """In a worker, report an error to the parent, which prints it once for the run."""
    try:
        yield
    except ParentEnded:
        raise typer.Exit(ExitCode.FORCED) from None
    except BaseException as error:
        if link is None or isinstance(error, typer.Exit):
            raise
        link.finish(message := _message(usage_error(error) or error))
        code = message["error"]["code"]
        raise typer.Exit(code) from error


def report_of(outcome: Outcome, pipelines: Mapping[str, Pipeline]) -> Message:
    """What a worker reports at its end."""
    message = _message(outcome.errors[0] if outcome.errors else None)
    return message | {
        "results": {target: described(result) for target, result in outcome.results.items()},
        "dead_letters": {it: topology_of(pipelines[it]).dead_letters for it in outcome.results},
        "unopened": unopened(outcome, pipelines),
        "idle": sorted(outcome.idle),
        "by": outcome.by,
        "figures": outcome.last_figures,
    }


def unopened(outcome: Outcome, pipelines: Mapping[str, Pipeline]) -> dict[str, str]:
    """How pipelines ended that were not running yet, by name.

    One that failed alone is left out: its error says enough, and standard output stays empty.
    """
    failed = outcome.failed if len(pipelines) > 1 else set()
    return {
        pipelines[target].name: "failed" if target in failed else "stopped"
        for target in pipelines
        if target in failed | outcome.unopened
    }


def _message(error: BaseException | None) -> Message:
    said = None
    if error is not None:
        code, text = error_line(error)
        cause = root_cause(error)
        away = is_a(cause, SinkUnavailable) or is_a(cause, OutcomeUnknown)
        said = {"code": int(code), "text": text, "outage": away or code in OUTAGES}
    return {
        "kind": "result",
        "results": {},
        "unopened": {},
        "idle": [],
        "dead_letters": {},
        "error": said,
    }


def described(result: RunResult) -> dict[str, Any]:
    """A result as JSON-ready data."""
    error = result.error
    return {
        "pipeline": result.pipeline,
        "reason": result.reason,
        "received": result.received,
        "settled": dict(result.settled),
        "failed": result.failed,
        "retried": result.retried,
        "unsettled": result.unsettled,
        "repeated": result.repeated,
        "committed": dict(result.committed),
        "seconds": result.seconds,
        "hung": list(result.hung),
        "discarded": list(result.discarded),
        "not_discarded": [[*place, why] for place, why in result.not_discarded.items()],
        "reasons": [asdict(reason) for reason in result.reasons],
        "error": None if error is None else text_of(error, REPORT_LIMIT),
        "halted_at": list(error.messages) if isinstance(error, Halted) else [],
    }


# -- in the parent


def summed_end(
    reports: Sequence[Message],
    killed: Sequence[Mapping[str, Any]],
    verdict: Verdict,
    seconds: float,
    targets: Mapping[str, str],
) -> Ended:
    """The end of a run whose workers, first and last ones, reported this.

    `killed` are the last snapshots of processes that could not report. `targets` are those of the
    pipelines, by name.
    """
    by_target: dict[str, list[Mapping[str, Any]]] = {}
    dead_letters: dict[str, str | None] = {}
    for report in reports:
        for target, result in report["results"].items():
            by_target.setdefault(target, []).append(result)
        dead_letters |= report["dead_letters"]
    for snapshot in killed:
        for pipeline in snapshot["pipelines"]:
            target = targets.get(pipeline["name"], pipeline["name"])
            by_target.setdefault(target, []).append(_shown(pipeline))
    results = {target: summed(found, seconds) for target, found in by_target.items()}
    opened = {result.pipeline for result in results.values()}
    unopened = {name: how for it in reports for name, how in it["unopened"].items()}
    forced = verdict == Verdict(ExitCode.FORCED)  # a handler's KeyboardInterrupt has a text
    return Ended(
        results,
        idle={target for it in reports for target in it["idle"]},
        unopened={name: how for name, how in unopened.items() if name not in opened},
        dead_letters=dead_letters,
        reported=None if forced or verdict.code == ExitCode.OK else verdict,
        forced=forced,
    )


def _shown(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """What the last snapshot of a killed process says of a pipeline, as a result.

    What it had in flight goes to other workers, so nothing is unsettled.
    """
    return {
        "pipeline": pipeline["name"],
        "reason": "stopped",
        "received": pipeline["received"],
        "settled": pipeline["outcomes"],
        "failed": pipeline["failed"],
        "retried": pipeline["retried"],
        "unsettled": 0,
        "committed": {it["stream"]: it["committed"] for it in pipeline["streams"] if it["active"]},
        "seconds": 0.0,
        "hung": [],
        "discarded": [],
        "not_discarded": [],
        "reasons": pipeline["reasons"],
        "error": None,
        "halted_at": [],
    }


def summed(results: Sequence[Mapping[str, Any]], seconds: float) -> RunResult:
    """One result of what all processes of a pipeline reported."""
    reasons = [result["reason"] for result in results]
    settled, committed = Counter[str](), dict[str, int | None]()
    for result in results:
        settled.update({str(key): int(value) for key, value in result["settled"].items()})
        for stream, offset in result["committed"].items():
            committed[stream] = max(
                (it for it in (committed.get(stream), offset) if it is not None), default=None
            )
    discarded = {(stream, offset) for it in results for stream, offset in it["discarded"]}
    left = {(stream, n): why for it in results for stream, n, why in it["not_discarded"]}
    return RunResult(
        pipeline=str(results[0]["pipeline"]),
        reason=next((it for it in WORST if it in reasons), reasons[-1]),
        received=_sum(results, "received"),
        settled=dict(settled),
        failed=_sum(results, "failed"),
        retried=_sum(results, "retried"),
        unsettled=_sum(results, "unsettled"),
        committed=committed,
        seconds=seconds,
        error=_error(results),
        hung=tuple(sorted({name for it in results for name in it["hung"]})),
        discarded=tuple(sorted(discarded)),
        not_discarded={place: why for place, why in left.items() if place not in discarded},
        reasons=merged_reasons(Reason.read(each) for it in results for each in it["reasons"]),
        # A process from before a roll may run an older version, which does not report it.
        repeated=sum(int(it.get("repeated", 0)) for it in results),
    )


def _sum(results: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(result[name]) for result in results)


def _error(results: Sequence[Mapping[str, Any]]) -> BaseException | None:
    """The error of the first process that had one, as far as a summary needs it."""
    for result in results:
        places = [(str(stream), int(offset)) for stream, offset in result["halted_at"]]
        if places:
            (stream, offset), text = places[0], str(result["error"])
            halted = Halted(
                text, pipeline=str(result["pipeline"]), stream=stream, offset=offset, reason=text
            )
            halted.messages = tuple(places)
            return halted
        if result["error"] is not None:
            return RuntimeError(str(result["error"]))
    return None
