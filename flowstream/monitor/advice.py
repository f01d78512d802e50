"""What to do about what is shown: one sentence, and the runbook that says the rest."""

from __future__ import annotations

ADVICE: dict[str, tuple[str, str]] = {
    "phase": (
        "FlowstreamNotReady",
        "It becomes ready by itself once it runs; a run that ends says why in its log.",
    ),
    "broker": (
        "FlowstreamDisconnected",
        "See whether the node is up, and whether the address that it advertises can be reached.",
    ),
    "handlers": (
        "FlowstreamHandlerStuck",
        "The log has the line where the handler waits; give that call a timeout.",
    ),
    "progress": (
        "FlowstreamStuck",
        "See which stage is busy and for how long its longest call has been running.",
    ),
    "commits": (
        "FlowstreamNotCommitting",
        "Nothing is lost, but a restart repeats what is not committed: see whether the broker "
        "answers.",
    ),
    "retention": (
        "FlowstreamTruncated",
        "What was removed is gone: keep more of the stream (max-age, max-length-bytes).",
    ),
    "failing": (
        "FlowstreamDeadLettering",
        "Read the reasons below: fix the cause first, then replay the dead letters, if any.",
    ),
    "crashed": (
        "FlowstreamStageCrashing",
        "The log has the traceback; a function of the declaration (partition_by, size) or the "
        "source raised.",
    ),
    "halted": (
        "FlowstreamRestarting",
        "Look at the message first and fix the handler; --discard STREAM@OFFSET passes over it.",
    ),
    "paused": (
        "FlowstreamPaused",
        "Resume it on this page (with --http-control), or where it was paused: the event log says "
        "by whom.",
    ),
    "lagging": (
        "FlowstreamLagGrowing",
        "A stage near 100 % busy is the limit: raise its concurrency, or run more processes.",
    ),
}
"""By the name of a check or a state: the heading of its runbook, and what to do first."""


def advice(name: str) -> dict[str, str]:
    """`advice` and `runbook` for a check or a condition; nothing where there is none.

    The runbook is a link from where the live page is: it is in the package, and always there.
    """
    if name not in ADVICE:
        return {}
    heading, text = ADVICE[name]
    return {"advice": text, "runbook": f"runbooks#{heading.lower()}"}
