"""Pipelines that feed each other in a circle are found, by check and by run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowstream.cli.pipelines.stream_topology import StreamTopology, chain_text, chains, endless
from tests.cli.command import flowstream

MODULE = """
from flowstream import DeadLetter, Halt, Message, Pipeline, StreamProducer, StreamSink

a = Pipeline("a", StreamProducer("x"), on_failure=DeadLetter("y"))
b = Pipeline("b", StreamProducer("y"), on_failure={policy})

@a.processor
@b.processor
async def handle(message: Message[dict]) -> None: ...
"""
BACK = 'DeadLetter("x")'


def wiring_of(name: str, read: str, *sinks: str, dead: str | None = None) -> StreamTopology:
    return StreamTopology(name, (read,), name, sinks, dead)


@pytest.mark.parametrize(
    ("topologies", "found"),
    [
        ([wiring_of("a", "x", "y"), wiring_of("b", "y", "z")], []),
        ([wiring_of("a", "x", "x")], []),
        ([wiring_of("a", "x", "y"), wiring_of("b", "y", "x")], ["ab"]),
        ([wiring_of("a", "x", dead="y"), wiring_of("b", "y", dead="x")], ["ab!"]),
        ([wiring_of("a", "x", dead="y"), wiring_of("b", "y", "x")], ["ab"]),
        (
            [wiring_of("c", "z", "x"), wiring_of("a", "x", "y", "q"), wiring_of("b", "y", "z")],
            ["cab"],
        ),
        (
            [wiring_of("a", "x", "y", dead="z"), wiring_of("b", "y", "x"),
             wiring_of("c", "z", dead="x")],
            ["ab", "ac!"],
        ),
    ],
)  # fmt: skip
def test_circles(topologies: list[StreamTopology], found: list[str]) -> None:
    circles = chains(topologies)
    assert [
        "".join(edge.pipeline for edge in circle) + ("!" if endless(circle) else "")
        for circle in circles
    ] == found


def test_a_circle_in_words() -> None:
    (circle,) = chains([wiring_of("a", "x", dead="y"), wiring_of("b", "y", "x")])
    assert chain_text(circle) == (
        "a dead-letters from x into y, b publishes from y into x: messages may circulate forever"
    )


def test_a_circle_of_dead_letters_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE.replace("{policy}", BACK))
    checked = flowstream("check", "shop:a", cwd=tmp_path)
    assert checked.code == 24
    assert "a message that fails circulates forever" in checked.out
    run = flowstream("run", "shop:a", "shop:b", cwd=tmp_path, url="rabbitmq-stream://localhost:1")
    assert (run.code, run.out) == (3, "")
    assert "a message that fails circulates forever" in run.err


def test_a_circle_through_a_sink_is_warned_of(tmp_path: Path) -> None:
    sink = '\nb.sink("again", StreamSink("x"))\n'
    (tmp_path / "shop.py").write_text(MODULE.replace("{policy}", "Halt()") + sink)
    checked = flowstream("check", "shop:b", cwd=tmp_path)
    assert checked.code == 0
    assert "messages may circulate forever" in checked.out
    run = flowstream("run", "shop:a", cwd=tmp_path, url="rabbitmq-stream://localhost:1")
    assert run.code == 4
    assert "warning: a dead-letters from x into y, b publishes from y into x" in run.err


def test_a_pipeline_that_dead_letters_into_its_own_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE.replace("{policy}", 'DeadLetter("y")'))
    checked = flowstream("check", "shop:b", cwd=tmp_path)
    assert checked.code == 24
    run = flowstream("run", "shop:b", cwd=tmp_path, url="rabbitmq-stream://localhost:1")
    assert (run.code, run.out) == (3, "")
    for said in (checked.out, run.err):
        assert "into 'y', which the pipeline reads" in " ".join(said.split())
