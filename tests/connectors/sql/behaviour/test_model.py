"""Any pipeline, broken at any effect of its sink, leaves what a run without a crash leaves.

A run is a process: its sink dies at one effect, and the offset that is stored on the broker is one
that it had settled until then, or an earlier one. Others follow, with another concurrency.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import Backoff, Drop, Halt, Message, Pipeline, Retry, SqliteSink
from tests.connectors.sql.conftest import SqliteStore
from tests.connectors.sql.faults import Faults, FaultySqlite
from tests.support.pipelines import MemoryStream

FATES = ["one", "two", "both", "drop", "refused"]
"""Where a message goes; the database refuses the last ones, in both tables."""


class FaultySink(SqliteSink):
    def __init__(self, faults: Faults, *args: Any, **options: Any) -> None:
        self.faults = faults
        super().__init__(*args, backoff=Backoff(0), create=True, **options)

    def connect(self) -> FaultySqlite:
        return FaultySqlite(self.faults, self.path, self.table, self.columns, self.key)


@dataclass(frozen=True)
class Life:
    """One process: how it is declared, and where it dies."""

    size: int
    concurrency: int
    keyed: bool
    at: int | None
    kind: Literal["kill", "lose"]
    after: bool
    rewind: int
    """By how many offsets the stored one is behind what it had settled."""


@contextmanager
def folder() -> Iterator[Path]:
    """In memory where the machine can: syncs are not what is tested here."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


async def live(stream: MemoryStream, fates: list[str], path: Path, life: Life) -> Faults:
    """Run to the end, or to the death of the sink."""
    faults = Faults(life.at, life.kind, life.after)
    pipeline = Pipeline(
        "shop", stream, retry=Retry(attempts=2, backoff=Backoff(0)), on_failure=Halt(),
        max_in_flight=12, commit_every=1,
    )  # fmt: skip

    @pipeline.processor
    async def process(message: Message[dict[str, Any]]) -> None:
        fate = fates[message.offset]
        if fate == "drop":
            message.drop()
        elif fate in ("both", "refused"):
            message.to("one", "two")
        else:
            message.to(fate)

    @pipeline.on_failed
    async def failed(failure: Any) -> Drop | None:
        return Drop() if fates[failure.message.offset] == "refused" else None

    for name in ("one", "two"):
        pipeline.sink(
            name, FaultySink(faults, path, name, columns={"id": int}), size=life.size,
            batch_timeout=0.01, concurrency=life.concurrency,
            partition_by=(lambda message: message.offset % 3) if life.keyed else None,
        )  # fmt: skip
    with anyio.fail_after(60):
        try:
            await pipeline.run()
        except Exception:
            assert faults.dead
    return faults


def check(fates: list[str], lives: list[Life]) -> list[bool]:
    """Live these lives and a last one without a fault, and compare; which of them broke."""
    broke = []
    body = [json.dumps({"id": None if fate == "refused" else n}) for n, fate in enumerate(fates)]
    stream = MemoryStream([each.encode() for each in body], slices=[5, 1, 3])
    with folder() as path:
        store = SqliteStore(path / "store.sqlite3")
        for life in lives:
            before = stream.stored.get("orders", -1)
            broke.append(anyio.run(live, stream, fates, store.path, life).broke)
            rewound = max(before, stream.stored.get("orders", -1) - life.rewind)
            if rewound >= 0:
                stream.stored["orders"] = rewound
        last = Life(4, 2, False, None, "kill", False, 0)
        anyio.run(live, stream, fates, store.path, last)
        for name in ("one", "two"):
            ids = [n for (n,) in store.ask(f"SELECT id FROM {name} ORDER BY id")]
            assert ids == [n for n, fate in enumerate(fates) if fate in (name, "both")]
        assert stream.stored["orders"] == len(fates) - 1
    return broke


LIVES = st.builds(
    Life,
    size=st.integers(1, 6),
    concurrency=st.integers(1, 3),
    keyed=st.booleans(),
    at=st.integers(0, 40),
    kind=st.sampled_from(["kill", "kill", "lose"]),
    after=st.booleans(),
    rewind=st.integers(0, 10),
)


@pytest.mark.medium
@given(st.lists(st.sampled_from(FATES), min_size=1, max_size=25), st.lists(LIVES, max_size=4))
def test_whatever_breaks_the_tables_are_as_without_a_crash(
    fates: list[str], lives: list[Life]
) -> None:
    check(fates, lives)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["kill", "lose"])
def test_every_effect_of_a_run_may_break(kind: Literal["kill", "lose"], after: bool) -> None:
    fates = ["both", "refused", "drop", "one"]
    for at in count():
        if not check(fates, [Life(2, 1, False, at, kind, after, 3)])[0]:
            break
    assert at > 20
