"""The text of a halt: at which message, why, and how to continue without losing others. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from operator import itemgetter

from flowstream.errors import Halted
from flowstream.pipeline.deciders.discards import Place, named
from flowstream.pipeline.message import Failure

LISTED = 100
"""How many messages a command names at most; `Halted.messages` has all of them."""
OTHERS = 10
"""How many messages a sentence names at most: the reason has to stay in sight."""


def halted(pipeline: str, failure: Failure, said: str, reason: str) -> Halted:
    """The error of a message that stops its pipeline; `advise` completes it when the run ends.

    `said` is what failed and where.
    """
    message, tries = failure.message, failure.attempts
    error = Halted(
        f"pipeline {pipeline!r} halted at {message.stream}@{message.offset}: {said} "
        f"after {tries} attempt{'s' if tries != 1 else ''}: {reason}",
        pipeline=pipeline,
        stream=message.stream,
        offset=message.offset,
        reason=reason,
    )
    error.__cause__ = failure.error
    return error


def advise(
    error: Halted, failed: Sequence[Place], discarded: Sequence[Place], unstored: Collection[str]
) -> None:
    """Complete the error's text at the end of the run, when all messages that `failed` are known.

    The `discarded` ones were discarded in this run behind one that failed, so the next run gets
    them again. For `unstored` streams no offset is stored, so the next run may get other messages.
    """
    error.messages = (*failed, *(place for place in discarded if place not in failed))
    text = str(error)
    if not failed:
        error.args = (f"{text}. It was pushed into the pipeline: no later run gets it again",)
        return
    others = [named(place) for place in failed if place != (error.stream, error.offset)]
    if others:
        text += f". So did {_listed(others)}"
    count = len(error.messages)
    what = "this message" if count == 1 else f"these {count} messages"
    if any(stream in unstored for stream, _ in failed):
        text += (
            f". Offsets of {_listed([*dict.fromkeys(map(itemgetter(0), failed))])} are not stored: "
            f"the next run gets {what} only if the source gives {what} again. Fix the cause and "
            f"run it, or, if the source starts again with the same offsets, discard {what}"
        )
    else:
        text += f". The next run gets {what} again: fix the cause and run it, or discard {what}"
    if count <= LISTED:
        text += f" and nothing else with `flowstream run ... {options(error.messages)}`"
    else:
        text += " (`Halted.messages`, and `halted_at` of --json, name them)"
    if len(error.messages) > len(failed):
        text += (
            f" ({_listed([named(place) for place in discarded])}: discarded in this run, but the "
            "committed offset is before it)"
        )
    error.args = (text,)


def options(messages: Sequence[Place]) -> str:
    """The options of `flowstream run` that discard these messages."""
    given = [f"--discard {shlex.quote(named(place))}" for place in messages[:LISTED]]
    if len(messages) > LISTED:
        given.append(f"... (and {len(messages) - LISTED} more; `Halted.messages` has all of them)")
    return " ".join(given)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - OTHERS
    return ", ".join(names[:OTHERS]) + (f" and {more} more" if more > 0 else "")
