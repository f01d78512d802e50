"""kill -9 of a process that writes files: what is complete at the end is there once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream import Environment
from flowstream.connectors import complete_files
from flowstream.testing import broker_in_thread
from tests.chaos.filed import COUNT, STREAM
from tests.chaos.seeds import new_seed
from tests.support.pipelines import numbers

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
KILLS = int(os.environ.get("CHAOS_KILLS", "25"))
"""At many effects, for each format."""


def start(folder: Path, format: str, runs: str, url: str = "") -> subprocess.Popen[str]:
    arguments = [str(folder), format, runs, *([url] if url else [])]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.filed", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run(folder: Path, format: str, *runs: tuple[int, int], url: str = "") -> int:
    """Run processes one after the other, by seed and the effect that kills each; how many died."""
    process = start(folder, format, ",".join(f"{seed}:{at}" for seed, at in runs), url)
    codes = list(map(int, process.communicate(timeout=PATIENCE)[0].split()))
    assert len(codes) == len(runs)
    assert {*codes} <= {0, -signal.SIGKILL}
    assert codes[-1] == 0 or runs[-1][1] >= 0
    return codes.count(-signal.SIGKILL)


def found(folder: Path, format: str) -> list[int]:
    """The numbers in complete files."""
    files = complete_files(folder)
    if format == "ndjson":
        lines = [line for file in files for line in Path(file).read_text().splitlines()]
        return [json.loads(line)["n"] for line in lines]
    if not files:
        return []
    dataset: Any = import_module("pyarrow.dataset")
    held: list[int] = dataset.dataset(files).to_table().column("n").to_pylist()
    return held


def check(folder: Path, format: str, count: int) -> None:
    """All that was not dropped, each once; and no file that is not complete."""
    left = temporaries(folder)
    if left:
        # Killed while it closed gaps, after all offsets were stored: only a message clears it up.
        assert all(file.name.endswith(".entry.tmp") for file in left)
        Path(f"{folder}.offset").unlink()
        run(folder, format, (0, -1))
    assert sorted(found(folder, format)) == [n for n in range(count) if n % 10 != 3]
    there = {str(file) for file in folder.rglob(f"*.{format}")}
    assert there == {*complete_files(folder)}
    assert not temporaries(folder)


def temporaries(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.tmp") if file.parent.name != "_probe"]


@pytest.mark.chaos
@pytest.mark.medium
def test_killed_while_files_appear(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    assert run(folder, "ndjson", (1, 18), (3, 33), (4, -1)) == 2
    check(folder, "ndjson", COUNT)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize("format", ["ndjson", "parquet"])
def test_killed_at_many_effects(tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra parquet")
    seed = new_seed()
    chance = random.Random(seed)
    kills = rounds = 0
    while kills < KILLS:
        folder = tmp_path / f"files{rounds}"
        rounds += 1
        dying = [(chance.randrange(1 << 32), chance.randrange(70)) for _ in range(6)]
        kills += run(folder, format, *dying)
        written = found(folder, format)
        assert len(written) == len({*written})
        run(folder, format, (0, -1))
        check(folder, format, COUNT)
    print(f"{kills} kills in {rounds} folders")


@pytest.mark.chaos
@pytest.mark.slow
def test_killed_at_any_moment_beside_another_process_of_its_reference(tmp_path: Path) -> None:
    """Two processes read one stream under one reference, and are killed in turn."""
    seed = new_seed()
    chance, folder, count = random.Random(seed), tmp_path / "files", 6000

    async def publish() -> None:
        async with Environment(broker.url) as environment:
            await environment.create_stream(STREAM)
            async with environment.publisher(STREAM) as publisher:
                await publisher.publish_many(numbers(count))

    with broker_in_thread() as broker:
        anyio.run(publish)
        for _ in range(10):
            seeds = [chance.randrange(1 << 32) for _ in range(2)]
            two = [start(folder, "ndjson", f"{each}:-1", broker.url) for each in seeds]
            time.sleep(chance.uniform(1.2, 3))
            for process in two:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=PATIENCE)
                time.sleep(chance.uniform(0, 0.2))
            written = found(folder, "ndjson")
            assert len(written) == len({*written})
        run(folder, "ndjson", (0, -1), url=broker.url)
    assert sorted(found(folder, "ndjson")) == [n for n in range(count) if n % 10 != 3]
