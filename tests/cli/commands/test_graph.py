"""`flowstream graph`: pipelines as a tree, as Mermaid and as JSON."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.command import Terminal, flowstream
from tests.cli.rows import Bad, Row

ROWS = {
    ("graph",): Row(
        "shop", r"└─ StreamProducer: stream orders from first",
        Bad("gone", 10, "no module 'gone'"), document='"edges"',
        alone=True,
    ),
}  # fmt: skip


MODULE = """
from flowstream import (Batch, DeadLetter, IterableProducer, Message, Pipeline, Retry,
                        StreamProducer, StreamSink)

orders = Pipeline("orders", StreamProducer("raw"), retry=Retry(attempts=3),
                  on_failure=DeadLetter("dead"))

@orders.processor(concurrency=4, partition_by=lambda m: m.data["n"])
def price(message: Message[dict]) -> None: ...

@orders.batcher("load", size=500, max_bytes=1_500_000)
async def load(batch: Batch[dict]) -> None: ...

orders.sink("out", StreamSink("priced"))

audit = Pipeline('au"dit', StreamProducer("priced", offset="next", reference="a"))

@audit.processor
async def look(message: Message[list[int]]) -> None: ...

copy = Pipeline("copy", StreamProducer("raw"))
copy.sink("out", StreamSink("raw.copy"))
"""

TREE = """\
orders
└─ StreamProducer: stream raw from first, offsets as orders
   └─ processor: price (def in threads), dict, 4 at a time, ordered by key
      ├─ load: load (async def), dict, batches of 500 or 1.5 MB or 1 s
      ├─ out: StreamSink('priced'), batches of 100 or 1 s
      └─ failed: 3 attempts, then DeadLetter dead
au"dit
└─ StreamProducer: stream priced from next, offsets as a
   └─ processor: look (async def), list[int]
      └─ failed: Halt
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(MODULE)
    return tmp_path


def test_as_a_tree(shop: Path) -> None:
    result = flowstream("graph", "shop:orders", "shop:audit", cwd=shop)
    assert (result.code, result.err) == (0, "")
    assert result.out == TREE


def test_without_a_processor(shop: Path) -> None:
    tree = flowstream("graph", "shop:copy", cwd=shop)
    assert (
        tree.out
        == """\
copy
└─ StreamProducer: stream raw from first, offsets as copy
   ├─ out: StreamSink('raw.copy'), batches of 100 or 1 s
   └─ failed: Halt
"""
    )
    chart = flowstream("graph", "shop:copy", "--format", "mermaid", cwd=shop)
    assert chart.out.count("-->") == 3


def test_on_a_terminal(shop: Path) -> None:
    with Terminal("graph", "shop:orders", cwd=shop) as terminal:
        assert terminal.end() == 0
    assert "└─ StreamProducer: stream raw" in terminal.screen


def test_as_mermaid(shop: Path) -> None:
    text = flowstream("graph", "shop:orders", "shop:audit", "--format", "mermaid", cwd=shop).out
    lines = text.splitlines()
    assert lines[0] == "flowchart LR"
    assert lines.count("  end") == 2
    names = dict(re.findall(r'^ +(n\d+)[\[(]+"(.+)"[\])]+$', text, re.MULTILINE))
    assert len(names) == 9  # 3 streams, 2 producers, 2 processors, 2 batchers
    edges = [
        (names[source], arrow, names[target])
        for source, arrow, target in re.findall(r"^  (n\d+) (.+) (n\d+)$", text, re.MULTILINE)
    ]
    assert edges[0] == ("raw", "-->", "producer: StreamProducer")
    assert ("batcher: out", "-->", "priced") in edges
    assert ("processor: price", "-. failed .->", "dead") in edges
    assert '["au#34;dit"]' in text


def test_as_json_a_stream_is_one_node(shop: Path) -> None:
    graph = flowstream("graph", "shop:orders", "shop:audit", "--json", cwd=shop).json
    streams = [node["label"] for node in graph["nodes"] if node["kind"] == "stream"]
    assert sorted(streams) == ["dead", "priced", "raw"]
    ids = {node["id"] for node in graph["nodes"]}
    assert all({edge["source"], edge["target"]} <= ids for edge in graph["edges"])
    ends = {(edge["source"], edge["target"]) for edge in graph["edges"]}
    assert {("orders.out", "stream:priced"), ("stream:priced", 'au"dit.producer')} <= ends


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (("graph", "gone"), 10, "no module 'gone'"),
        (("graph", "shop:gone"), 12, "shop has no pipeline 'gone'; it has "),
        (("graph", "shop:orders", "--format", "png"), 2, "'png' is not one of"),
    ],
)
def test_bad_input(shop: Path, line: tuple[str, ...], code: int, text: str) -> None:
    result = flowstream(*line, cwd=shop)
    assert result.code == code
    assert text in result.err


FILES = """
from flowstream import FileSink, Pipeline, StreamProducer

copy = Pipeline("copy", StreamProducer("raw"))
copy.sink("out", FileSink("out", format="ndjson"))
"""


def test_what_is_exactly_once_is_marked(tmp_path: Path) -> None:
    (tmp_path / "files.py").write_text(FILES)
    tree = flowstream("graph", "files", cwd=tmp_path).out
    assert "batches of 100 or 1 s [exactly once]\n" in tree
    drawn = flowstream("graph", "files", "--format", "mermaid", cwd=tmp_path).out
    assert "batcher: out [exactly once]" in drawn
    nodes = flowstream("graph", "files", "--json", cwd=tmp_path).json["nodes"]
    assert [it["guarantee"]["level"] for it in nodes if it["guarantee"]] == ["exactly once"]
