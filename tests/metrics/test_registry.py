"""Every event that matters reaches its metric, and a scrape shows every metric."""

from __future__ import annotations

import pytest

from flowstream import telemetry
from flowstream.metrics import MAX_VALUES, OTHER, Metrics
from flowstream.telemetry import (
    Abandoned,
    AttemptFailed,
    BatchReady,
    BrokerBack,
    BrokerLost,
    ChunkReceived,
    CommitFailed,
    Committed,
    Confirmed,
    ConnectionLost,
    ConnectionOpened,
    Controlled,
    Dropped,
    Event,
    Failed,
    Halted,
    HandlerDone,
    HandlerStuck,
    LoopBlocked,
    LoopTurned,
    OffsetMoved,
    Overtaken,
    PartitionMoved,
    PhaseChanged,
    Published,
    Received,
    RecoveryFailed,
    RetentionLooked,
    Retried,
    Settled,
    StageCrashed,
    StateChanged,
    SubscribedAgain,
    Truncated,
    Warned,
)

EVENTS: tuple[Event, ...] = (
    PhaseChanged("p", "starting", 0.0),
    PhaseChanged("p", "running", 0.25),
    ConnectionOpened("localhost:5552", "consumer"),
    ConnectionOpened("localhost:5552", "consumer"),
    ConnectionLost("localhost:5552", "consumer", "reset", "network"),
    ChunkReceived("s", 100, 12_000, 9, 950, 12_000),
    Overtaken("s", 7),
    RetentionLooked("s", 1200),
    Received("p", "s", 100, 10_000),
    HandlerDone("p", "processor", 100, 3, 0.02),
    AttemptFailed("p", "processor", "process", "ValueError", 5, "no"),
    Failed("p", "processor", "process", "ValueError", 3, "no"),
    Retried("p", "processor", 2, 1, 0.5, "ValueError", "process", "no"),
    BatchReady("p", "default", 97, "size", 0.3),
    HandlerDone("p", "default", 97, 0, 0.2),
    Settled("p", "s", "ok", 90, 0.5),
    Dropped("p", "s", "test order", 3, True),
    Abandoned("p", "s", 1),
    Committed("p", "s", 89, False),
    CommitFailed("p", "s", 89, "RequestTimeout"),
    Truncated("p", "s", 7),
    OffsetMoved("p", "s", "p", 89, 12),
    Warned("p", "max_in_flight", "max_in_flight=10 is less than ..."),
    PartitionMoved("p", "all", "s", True, None),
    PartitionMoved("p", "all", "t", True, None),
    PartitionMoved("p", "all", "t", False, 0.2),
    SubscribedAgain("p", "all"),
    StageCrashed("p", "default", "OSError", True),
    HandlerStuck("p", "default", 61.0, "File ..."),
    Published("t", 10, 1_000, 10),
    Confirmed("t", 8, 1, 0.01, 2),
    StateChanged("consumer", "s", "open", "", 0.1),
    StateChanged("consumer", "s", "recovering", "gone", 60.0),
    RecoveryFailed("consumer", "s", "no broker"),
    StateChanged("consumer", "s", "open", "", 2.0),
    LoopTurned(0.002),
    Halted("p", "Halted", "pipeline 'p' halted at s@89"),
    LoopBlocked("p", "processor", 1.5, "File ..."),
    Controlled("p", "pause", "", "the live page"),
    BrokerLost("e", "its broker", "reset", ("consumer of s",)),
    BrokerBack("e", "its broker", 2.0),
)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def fed() -> Metrics:
    metrics = Metrics()
    for event in EVENTS:
        metrics.observe(event)
    return metrics


def test_every_event_is_counted() -> None:
    defined = {
        cls for cls in vars(telemetry).values() if isinstance(cls, type) and Event in cls.__bases__
    }
    assert defined == {type(event) for event in EVENTS}


def test_counts(fed: Metrics) -> None:
    assert value(fed, "flowstream_received_messages_total", pipeline="p", stream="s") == 100
    failed = {"stage": "processor", "phase": "process", "error": "ValueError"}
    assert value(fed, "flowstream_failed_attempts_total", pipeline="p", **failed) == 5
    assert value(fed, "flowstream_batch_messages_sum", pipeline="p", batcher="default") == 97
    assert value(fed, "flowstream_committed_offset", pipeline="p", stream="s") == 89
    assert value(fed, "flowstream_foreign_commits_total", pipeline="p", stream="s") == 1
    assert value(fed, "flowstream_rebalances_total", pipeline="p", super_stream="all") == 1
    assert value(fed, "flowstream_connections", role="consumer") == 1
    assert value(fed, "flowstream_unconfirmed_messages", stream="t") == 2
    assert value(fed, "flowstream_phase", pipeline="p", phase="starting") == 0
    assert value(fed, "flowstream_phase", pipeline="p", phase="running") == 1


def test_of_several_readers_of_a_stream_the_one_most_behind_counts() -> None:
    """Such as two pipelines of one process: the last one to look may be the one that is ahead."""
    metrics = Metrics()
    name = "flowstream_retention_headroom_messages"
    for event in (RetentionLooked("s", 3, "slow"), RetentionLooked("s", 900, "fast")):
        metrics.observe(event)
    assert metrics.registry.get_sample_value(name, {"stream": "s"}) == 3
    metrics.observe(StateChanged("consumer", "s", "closed", "", 0.0))
    metrics.observe(RetentionLooked("s", 950, "fast"))
    assert metrics.registry.get_sample_value(name, {"stream": "s"}) == 950


def test_free_labels_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_VALUES + 10):
        metrics.observe(Failed("p", "processor", "process", f"Error{number}", 1, "no"))
    name = "flowstream_failed_messages_total"
    common = {"pipeline": "p", "stage": "processor", "phase": "process"}
    assert value(metrics, name, **common, error="Error0") == 1
    assert value(metrics, name, **common, error=OTHER) == 10


def test_unknown_events_are_ignored() -> None:
    class Strange(Event):
        __slots__ = ()

    metrics = Metrics()
    before = metrics.exposition()
    metrics.observe(Strange())
    assert _without_process(metrics.exposition()) == _without_process(before)


def _without_process(exposition: tuple[str, bytes]) -> list[bytes]:
    """The lines of the catalogue's metrics; those of the process change by themselves."""
    return [line for line in exposition[1].splitlines() if b"flowstream_" in line]


def test_a_scrape_refreshes_what_asks_for_it() -> None:
    metrics = Metrics()
    metrics.before_scrape.append(lambda m: m.set("in_flight_messages", 7, "p"))
    content_type, body = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert b'flowstream_in_flight_messages{pipeline="p"} 7.0' in body
    assert body.endswith(b"# EOF\n")


def recovering(metrics: Metrics) -> float | None:
    labels = {"kind": "consumer", "name": "s"}
    return metrics.registry.get_sample_value("flowstream_recovering", labels)


def test_what_several_have_of_one_stream_is_added_up() -> None:
    """Two pipelines of a process that read one stream: the last one to report hid the other."""
    metrics = Metrics()
    for number in (1, 2):
        metrics.observe(StateChanged("consumer", "s", "open", "", 0.1, "a", number))
        metrics.observe(StateChanged("publisher", "t", "open", "", 0.1, "a", number))
        metrics.observe(ChunkReceived("s", 10, 100, 9, 50, 1_000 * number, number))
        metrics.observe(Published("t", 5, 50, 5 * number, number))
    metrics.observe(StateChanged("consumer", "s", "recovering", "gone", 9.0, "a", 1))
    metrics.observe(StateChanged("consumer", "s", "open", "", 0.1, "b", 2))
    assert value(metrics, "flowstream_credits", stream="s") == 18
    assert value(metrics, "flowstream_buffered_bytes", stream="s") == 3_000
    assert value(metrics, "flowstream_unconfirmed_messages", stream="t") == 15
    assert recovering(metrics) == 1
    metrics.observe(StateChanged("consumer", "s", "closed", "", 1.0, "a", 1))
    metrics.observe(StateChanged("publisher", "t", "closed", "", 1.0, "a", 2))
    assert value(metrics, "flowstream_credits", stream="s") == 9
    assert value(metrics, "flowstream_unconfirmed_messages", stream="t") == 5
    assert recovering(metrics) == 0
    metrics.observe(StateChanged("consumer", "s", "closed", "", 1.0, "a", 2))
    for gauge in ("credits", "buffered_bytes"):
        assert value(metrics, f"flowstream_{gauge}", stream="s") is None
