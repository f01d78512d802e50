"""What to do about a failing check or a condition: one sentence, and the runbook with the rest."""

from __future__ import annotations

ADVICE: dict[str, tuple[str, str]] = {
    "phase": (
        "FlowstreamNotReady",
        "It becomes ready when it is running. If the run ends instead, its log says why.",
    ),
    "broker": (
        "FlowstreamDisconnected",
        "Check that the node is up, and that the address it advertises can be reached.",
    ),
    "handlers": (
        "FlowstreamHandlerStuck",
        "The log shows the line where the handler waits: give that call a timeout.",
    ),
    "answers": (
        "FlowstreamHandlerStuck",
        "What is shown of it is old. If a handler blocks its event loop, put the code that blocks "
        "into a plain def. The process may also be stopped.",
    ),
    "progress": (
        "FlowstreamStuck",
        "See which stage is busy, and for how long its longest call has been running.",
    ),
    "commits": (
        "FlowstreamNotCommitting",
        "Nothing is lost, but a restart would repeat uncommitted messages: check that the broker "
        "answers.",
    ),
    "offset": (
        "FlowstreamNotReady",
        "Was the stream deleted and created again? Stop the run, and reset its offset to first: "
        "flowstream offsets reset REFERENCE STREAM --to first.",
    ),
    "retention": (
        "FlowstreamTruncated",
        "The removed messages are lost: keep more of the stream (max-age, max-length-bytes).",
    ),
    "failing": (
        "FlowstreamDeadLettering",
        "Read the reasons below. Fix the cause first, then replay the dead letters, if any.",
    ),
    "crashed": (
        "FlowstreamStageCrashing",
        "The log has the traceback: a function of the declaration (partition_by, size) or the "
        "source raised an exception.",
    ),
    "died": (
        "FlowstreamRestarting",
        "SIGKILL is mostly the kernel's, for want of memory: see dmesg, and the limit of the "
        "container. Messages that were in flight come again, and one of them may be the cause.",
    ),
    "halted": (
        "FlowstreamRestarting",
        "Look at the reason and the message, and fix the cause. --discard STREAM@OFFSET skips the "
        "message.",
    ),
    "paused": (
        "FlowstreamPaused",
        "Resume it on this page (with --http-control), or where it was paused: the event log "
        "shows who paused it.",
    ),
    "slow": (
        "FlowstreamHandlerStuck",
        "Find what the handler waits for: after stuck_after (60 s) the log shows the line. Give "
        "that call a timeout, or the stage (timeout=).",
    ),
    "lagging": (
        "FlowstreamLagGrowing",
        "A stage near 100 % busy is the bottleneck: raise its concurrency, or run more processes.",
    ),
}
"""By the name of a check or the topic of a condition: its runbook, and what to do first."""


def advice(name: str) -> dict[str, str]:
    """The `advice` for a check or condition, and the link to its `runbook`; empty without advice.

    The link is relative to the live page: the run serves the runbooks itself.
    """
    if name not in ADVICE:
        return {}
    heading, text = ADVICE[name]
    return {"advice": text, "runbook": f"runbooks#{heading.lower()}"}
