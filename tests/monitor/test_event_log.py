"""The event log: what happened in line_of, few entries, and never too many."""

from __future__ import annotations

import json

import pytest

from flowstream.monitor.event_log import MAX_ENTRIES, MAX_LENGTH, REPEATED_WITHIN, EventLog
from flowstream.telemetry import (
    Abandoned,
    BrokerBack,
    BrokerLost,
    CommitFailed,
    ConnectionLost,
    Controlled,
    Event,
    Halted,
    HandlerStuck,
    LoopBlocked,
    OffsetMoved,
    PartitionMoved,
    PhaseChanged,
    RetentionLooked,
    Settled,
    StageCrashed,
    StateChanged,
    Truncated,
    Warned,
)


def line(*events: Event) -> list[tuple[str, str | None, str]]:
    """What is in the log after these, the newest last."""
    log = EventLog()
    for number, event in enumerate(events):
        log.observe(event, float(number))
    return [(it["level"], it["pipeline"], it["text"]) for it in reversed(log.newest())]


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (PhaseChanged("p", "running", 0.1), "info", "the run is running"),
        (Halted("p", "Halted", "order 7"), "error", "the run ends with Halted: order 7"),
        (PartitionMoved("p", "all", "s-1", True, None), "info",
         "this process reads partition 's-1'"),
        (PartitionMoved("p", "all", "s-1", False, 0.25), "info",
         "partition 's-1' was handed over after 0.2 s"),
        (Truncated("p", "s", 7_000), "error",
         "retention removed 7,000 messages of 's' before the pipeline processed them"),
        (StageCrashed("p", "load", "OSError: full", True), "error",
         "stage 'load' crashed and was restarted: OSError: full"),
        (HandlerStuck("p", "load", 61.2, "File x\n  requests.get(url)\n"), "warning",
         "'load' has not returned for 61 s; it is at requests.get(url)"),
        (CommitFailed("p", "s", 7, "TimeoutError"), "warning",
         "an offset of 's' could not be stored: TimeoutError"),
        (OffsetMoved("p", "s", "shop", 89, 12), "warning",
         "the stored offset of 's' under the reference 'shop' was 12, from another writer (this "
         "run stored 89)"),
        (Warned("p", "retry", "retry: it may wait longer"), "warning", "retry: it may wait longer"),
        (Abandoned("p", "s", 1), "warning",
         "1 message of 's' was abandoned; the next run processes it again"),
        (Controlled("p", "pause", "", "the live page"), "info", "paused, by the live page"),
        (Controlled("p", "rate_limit", "limited to 5 messages every 1 s", "alice"), "info",
         "limited to 5 messages every 1 s, by alice"),
        (PartitionMoved("p", "all", "s-1", False, 0.2), "info",
         "partition 's-1' was handed over after 0.2 s"),
        (PartitionMoved("p", "all", "s-1", False, 0.2, lost=True), "info",
         "partition 's-1' left this process: its connection is lost"),
        (LoopBlocked("p", "load", 3.04, "File x\n  time.sleep(3)\n"), "warning",
         "'load' blocked the event loop for 3.0 s at time.sleep(3)"),
    ],
)  # fmt: skip
def test_what_happened_is_told(event: Event, level: str, text: str) -> None:
    assert line(event) == [(level, "p", text)]


def test_what_is_lost_comes_back_after_so_long() -> None:
    assert line(
        StateChanged("consumer", "s", "connecting", "", 0.0),
        StateChanged("consumer", "s", "open", "", 0.1),
        ConnectionLost("a:1", "consumer", "reset by peer", "network"),
        StateChanged("consumer", "s", "recovering", "reset by peer", 60.0),
        BrokerLost("e", "its broker", "reset", tuple(f"consumer of s-{n}" for n in range(9))),
        StateChanged("consumer", "s", "open", "", 3.25),
        BrokerBack("e", "its broker", 3.25),
        StateChanged("consumer", "s", "closed", "", 9.0),
    ) == [
        ("info", None, "the consumer of 's' is connected"),
        ("warning", None, "a connection to a:1 (consumer) was lost: reset by peer"),
        ("warning", None, "'e' lost its broker: reset; the consumer of s-0, the consumer of s-1, "
         "the consumer of s-2, the consumer of s-3, the consumer of s-4 and 4 more wait"),
        ("info", None, "'e' is connected to its broker again after 3.2 s"),
    ]  # fmt: skip


def test_retention_that_overtakes_a_reader_is_told_once() -> None:
    looks = (5, -1_600, -1_900, 10, -1)
    text = (
        "retention has overtaken the reader of 's': {} behind the last settled one {} removed, and "
        "lost unless received before"
    )
    assert line(*(RetentionLooked("s", headroom) for headroom in looks)) == [
        ("warning", None, text.format("1,600 offsets", "are")),
        ("warning", None, text.format("1 offset", "is")),
    ]


def test_of_several_readers_of_a_stream_each_is_told_once() -> None:
    behind, ahead = RetentionLooked("s", -5, "slow"), RetentionLooked("s", 900, "fast")
    assert len(line(behind, ahead, behind, ahead, behind)) == 1


def test_one_waits_and_several_wait() -> None:
    assert line(BrokerLost("e", "the node that serves s", "moved", ("publisher of s",))) == [
        ("warning", None, "'e' lost the node that serves s: moved; the publisher of s waits")
    ]


def test_what_is_asked_for_or_flows_is_no_news() -> None:
    assert line(
        ConnectionLost("a:1", "consumer", "closed", "request"),
        PartitionMoved("p", "all", "s-1", False, None),
        Settled("p", "s", "ok", 100, 0.5),
    ) == []  # fmt: skip


def test_what_happens_again_is_counted() -> None:
    log = EventLog()
    again = CommitFailed("p", "s", 7, "TimeoutError")
    log.observe(again, 10.0)
    log.observe(PhaseChanged("p", "draining", 0.0), 11.0)
    log.observe(again, 12.0)
    first, second = log.newest()
    assert (first["at"], first["count"], second["count"]) == (12.0, 2, 1)
    log.observe(again, 12.0 + REPEATED_WITHIN)
    assert [it["count"] for it in log.newest()] == [1, 2, 1]


def test_no_password_is_in_it() -> None:
    url = "rabbitmq-stream://me:hunter2@host:5552/v"
    for _, _, text in line(CommitFailed("p", "s", 7, f"cannot connect to {url}"),
                           StateChanged("consumer", "s", "recovering", url, 1.0)):  # fmt: skip
        assert "hunter2" not in text
        assert "me:***@host" in text


def test_it_is_bounded() -> None:
    log = EventLog()
    for number in range(3 * MAX_ENTRIES):
        log.add(float(number), "info", f"{number} " + "x" * 2 * MAX_LENGTH)
    entries = log.newest()
    assert len(entries) == MAX_ENTRIES
    assert entries[0]["text"].startswith(f"{3 * MAX_ENTRIES - 1} ")
    assert max(len(it["text"]) for it in entries) == MAX_LENGTH
    assert json.loads(json.dumps(entries)) == entries
