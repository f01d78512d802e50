"""`flowstream sinks init|list|reset`."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.error
import urllib.request
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.running import Broker
from tests.cli.command import Result, Started, flowstream
from tests.cli.rows import TABLE, Bad, Row

GONE = Bad("gone", 10, "no module 'gone'")
ROWS = {
    ("sinks", "init"): Row(
        "shop", r"no sink needs anything to be made", GONE, document=r"\[", alone=True
    ),
    ("sinks", "list"): Row(
        "{sinks}", r"shop +rows +exactly once[\s\S]+0-1 +1 +0", GONE, drawn=TABLE,
        document='"last_written": 1', wide=True, waiting="shop",
    ),
    ("sinks", "reset"): Row(
        "{sinks} --watch 0", r"shop/rows[\s\S]+forgotten: 1 record",
        Bad("{sinks} --sink no --yes", 2, "--sink no: no such sink keeps a record.+ rows"),
        drawn=TABLE, document='"forgotten": true', asks=r"Forget that it was written\?", wide=True,
        waiting="shop --yes",
    ),
}  # fmt: skip

SHOP = """
from flowstream import (FileSink, Message, Pipeline, PostgresSink, SqliteSink, StreamProducer,
                        StreamSink)

pipeline = Pipeline("shop", StreamProducer("{stream}"))


@pipeline.processor
async def check(message: Message[dict[str, int]]) -> None:
    message.to("rows", "files", "out")


pipeline.sink("rows", SqliteSink("shop.db", "orders", columns={{"n": int}}), batch_timeout=0.05)
pipeline.sink("files", FileSink("files", format="ndjson"), batch_timeout=0.05)
pipeline.sink("out", StreamSink("{stream}.out"), batch_timeout=0.05)
"""


class Shop:
    """A folder with a pipeline of three sinks, and a stream of numbers on a broker."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder = folder
        self.url = broker.url
        self.stream = f"sinks-{uuid.uuid4().hex[:6]}"
        (folder / "shop.py").write_text(SHOP.format(stream=self.stream))

    def __call__(self, *line: str, stdin: bytes = b"") -> Result:
        return flowstream(*line, url=self.url, cwd=self.folder, stdin=stdin)

    def run(self) -> None:
        result = self("run", "shop", "--create", "--until-idle", "0.2")
        assert result.code == 0, result.err

    def publish(self, *numbers: int) -> None:
        lines = "".join(f'{{"n": {n}}}\n' for n in numbers).encode()
        assert self("publish", self.stream, "-", "--create", stdin=lines).code == 0

    def listed(self) -> dict[str, dict[str, Any]]:
        result = self("sinks", "list", "shop", "--json")
        assert result.code == 0, result.err
        return {row["sink"]: row for row in result.json}

    def rows(self) -> list[int]:
        with closing(sqlite3.connect(self.folder / "shop.db")) as database:
            return [n for (n,) in database.execute("SELECT n FROM orders ORDER BY rowid")]

    def files(self) -> list[int]:
        files = sorted((self.folder / "files").glob("*.ndjson"))
        return [json.loads(line)["n"] for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def shop(tmp_path: Path, embedded_broker: Broker) -> Shop:
    return Shop(tmp_path, embedded_broker)


@pytest.mark.slow
def test_made_listed_forgotten_and_written_again(shop: Shop) -> None:
    shop.publish(1, 2, 3)
    before = shop.listed()
    assert {name: it["state"] for name, it in before.items()} == {
        "rows": "not made", "files": "not made", "out": "no record",
    }  # fmt: skip
    assert not (shop.folder / "shop.db").exists()
    for _ in range(2):  # what is there stays
        made = shop("sinks", "init", "shop", "--json")
        assert [row["sink"] for row in made.json] == ["rows", "files"]
    assert shop.listed()["rows"]["state"] == "ready"
    shop.run()
    assert (shop.rows(), shop.files()) == ([1, 2, 3], [1, 2, 3])
    found = shop.listed()
    for name in ("rows", "files"):
        row = found[name]
        assert (row["written"], row["last_written"], row["committed"]) == ([[0, 2]], 2, 2)
        assert (row["guarantee"], row["stream"]) == ("exactly once", shop.stream)
    assert found["out"]["guarantee"] == "at least once"

    again = ("offsets", "reset", "shop", shop.stream, "--to", "first", "--watch", "0", "--yes")
    assert shop(*again).code == 0
    shop.run()
    assert (shop.rows(), shop.files()) == ([1, 2, 3], [1, 2, 3])  # left out

    told = shop("sinks", "reset", "shop", "--sink", "rows", "--watch", "0", "--yes")
    assert told.code == 0, told.err
    assert "shop/rows" in told.out
    assert "is written again when it comes again" in told.err
    assert shop(*again).code == 0
    shop.run()
    assert (shop.rows(), shop.files()) == ([1, 2, 3, 1, 2, 3], [1, 2, 3])

    assert shop("sinks", "reset", "shop", "--force", "--yes").code == 0
    assert shop.listed()["files"]["written"] is None
    nothing = shop("sinks", "reset", "shop", "--force", "--yes")
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing is written" in nothing.err
    assert shop(*again).code == 0
    shop.run()
    assert shop.files() == [1, 2, 3, 1, 2, 3]


def test_a_table_without_a_column_is_refused(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.folder / "shop.db")) as database:
        database.execute("CREATE TABLE orders (other)")
    result = shop("sinks", "init", "shop")
    assert result.code == 3
    assert "the table 'orders'" in result.err
    assert "n" in result.err


def test_a_destination_that_cannot_be_used(shop: Shop) -> None:
    (shop.folder / "files").write_text("no folder")
    result = shop("sinks", "init", "shop")
    assert result.code == 27
    assert str(shop.folder / "files") in result.err
    assert len(result.err.splitlines()) == 1
    listed = shop("sinks", "list", "shop", "--json")  # one that fails does not hide the others
    assert [row["sink"] for row in listed.json] == ["rows", "files", "out"]


def test_what_cannot_be_read_cannot_be_forgotten(shop: Shop) -> None:
    """It is no record without an entry: a script would go on, and nothing would come again."""
    (shop.folder / "shop.db").write_text("no database")
    (listed,) = [it for it in shop("sinks", "list", "shop", "--json").json if it["sink"] == "rows"]
    assert (listed["state"], listed["written"]) == ("cannot be read", None)
    result = shop("sinks", "reset", "shop", "--force", "--yes")
    assert (result.code, result.out) == (27, "")
    assert "error: cannot open the SQLite file 'shop.db': DatabaseError: file is not" in result.err
    assert "nothing" not in result.err


@pytest.mark.slow
def test_the_records_of_a_super_stream_are_those_of_its_partitions(shop: Shop) -> None:
    """Its partitions have the records, and its name is what the pipeline reads."""
    assert shop("super-streams", "create", shop.stream, "--key", "eu", "--key", "us").code == 0
    text = SHOP.format(stream=shop.stream).replace("StreamProducer", "SuperStreamProducer")
    (shop.folder / "shop.py").write_text(text)
    for key in ("eu", "us"):
        published = shop("publish", f"{shop.stream}-{key}", "-", stdin=b'{"n": 1}\n')
        assert published.code == 0, published.err
    assert shop("sinks", "init", "shop").code == 0
    shop.run()
    forget = ("sinks", "reset", "shop", "--sink", "rows", "--force", "--yes", "--json", "--stream")
    assert shop(*forget, f"{shop.stream}-xx").json == []
    assert [it["stream"] for it in shop(*forget, f"{shop.stream}-eu").json] == [f"{shop.stream}-eu"]
    assert [it["stream"] for it in shop(*forget, shop.stream).json] == [f"{shop.stream}-us"]


def test_a_reset_says_which_stream_has_no_record_and_how_to_go_on_without_it(shop: Shop) -> None:
    result = shop("sinks", "reset", "shop", "--stream", "orders", "--force", "--yes")
    assert "nothing is written of 'orders', so there is nothing to forget" in result.err
    gone = shop("sinks", "reset", "shop", "--yes")
    assert gone.code == 6
    assert "--force forgets without looking for a run of shop" in gone.err


def is_ready(monitor: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{monitor}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_a_pipeline_that_is_running_is_refused(shop: Shop) -> None:
    shop.publish(1)
    assert shop("sinks", "init", "shop").code == 0
    shop.run()
    line = ("run", "shop", "--http", "127.0.0.1:0")
    with Started(*line, url=shop.url, cwd=shop.folder) as running:
        monitor = running.line("live page on").split("//")[1].split("/")[0]
        while not is_ready(monitor):
            assert running.process.poll() is None, running.end().err
            time.sleep(0.02)
        result = shop("sinks", "reset", "shop", "--yes", "--http", monitor, "--watch", "0")
    assert result.code == 31
    assert "stop it first" in result.err
    assert shop.listed()["rows"]["written"] == [[0, 0]]


ONCE = """
from flowstream import DeadLetter, Message, Pipeline, StreamProducer, StreamSink

pipeline = Pipeline(
    "shop", StreamProducer("{stream}"), on_failure=DeadLetter("{stream}.dead", exactly_once=True)
)


@pipeline.processor
async def check(message: Message[dict[str, int]]) -> None:
    if message.data["n"] == 2:
        message.fail("not two", retry=False)


pipeline.sink("out", StreamSink("{stream}.out", exactly_once=True), batch_timeout=0.05)
"""


def test_what_is_published_exactly_once_is_listed_by_source_and_target(shop: Shop) -> None:
    (shop.folder / "shop.py").write_text(ONCE.format(stream=shop.stream))
    shop.publish(1, 2, 3)
    before = shop.listed()  # no target exists yet
    assert {name: it["state"] for name, it in before.items()} == {
        "out": "not known", "dead-letters": "not known",
    }  # fmt: skip
    shop.run()
    found = shop.listed()
    for name, last, target in (("out", 2, "out"), ("dead-letters", 1, "dead")):
        row = found[name]
        assert (row["guarantee"], row["state"]) == ("exactly once", "ready")
        assert (row["stream"], row["last_written"], row["committed"]) == (shop.stream, last, 2)
        assert row["last_publishing_id"] == (last + 1) << 16
        assert row["reference"] == f"shop/{name}<{shop.stream}"
        assert row["destination"] == f"the stream '{shop.stream}.{target}'"
    assert "up to 2" in shop("sinks", "list", "shop").out

    told = shop("sinks", "reset", "shop", "--sink", "out", "--yes")
    assert told.code == 2
    assert 'give the sink another one, such as reference="shop/out-2"' in told.err
    everything = shop("sinks", "reset", "shop", "--force", "--yes")
    assert everything.code == 0
    assert 'such as reference="shop/dead-letters-2"' in everything.err
