"""A run with workers as processes: takeover, rolling, draining, and what cannot start."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from prometheus_client.parser import text_string_to_metric_families

from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.workers.parent_watch import GRACE
from tests.brokers.running import Broker
from tests.cli.command import flowstream
from tests.cli.workers.fleet import WINDOW, Fleet, alive
from tests.integration.test_client_consuming import declare_super_stream

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TAKEOVER = 3.0
MESSAGES = 6_000


def sum_of(fleet: Fleet, name: str, **labels: str) -> float:
    """The sum of a metric over all workers."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(fleet.get("/metrics")[1])
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_a_worker_is_killed_and_all_are_replaced_under_load(
    broker: Broker, tmp_path: Path
) -> None:
    """Nothing is lost; repeats are bounded by what was in flight; the figures are the sum.

    What was settled since the last commit is repeated, too: here a commit follows in 0.2 s.
    """
    with Fleet(broker, tmp_path) as fleet:
        await fleet.begin()
        victim, killed = 0, 0.0

        async def disturb() -> None:
            nonlocal victim, killed
            await to_thread.run_sync(fleet.until, lambda: len(fleet.handled()) > MESSAGES / 5)
            victim = fleet.snapshot()["workers"][1]["pid"]
            killed = time.time()
            os.kill(victim, signal.SIGKILL)
            await to_thread.run_sync(
                fleet.until,
                lambda: {it["restarts"] for it in fleet.snapshot()["workers"]} == {0, 1},
            )
            await to_thread.run_sync(fleet.until, lambda: fleet.readers() == {1, 2})

        publishing = anyio.Event()
        async with anyio.create_task_group() as group:

            async def publish() -> None:
                await fleet.publish(0, MESSAGES, lambda: anyio.sleep(0.05))
                publishing.set()

            group.start_soon(publish)
            group.start_soon(disturb)
        await to_thread.run_sync(fleet.until, lambda: len(fleet.handled()) == MESSAGES)
        repeats = fleet.handled().total() - MESSAGES
        assert repeats <= 2 * WINDOW
        for partition in range(3):
            assert fleet.longest_pause(f"{fleet.name}-{partition}", killed) < TAKEOVER
        # The page has the figures of the last look at the workers, and /metrics those of now.
        await to_thread.run_sync(
            fleet.until,
            lambda: (
                fleet.snapshot()["pipelines"][0]["settled"]
                == sum_of(fleet, "flowstream_settled_messages_total")
            ),
        )
        shown = fleet.snapshot()
        (pipeline,) = shown["pipelines"]
        assert fleet.readers() == {1, 2}
        settled = sum_of(fleet, "flowstream_settled_messages_total")
        assert settled == pipeline["settled"]
        # A killed one takes with it what it has counted since the last look, a second before.
        untold = sum(float(at) > killed - 3 for _, _, at in fleet.rows(victim))
        assert MESSAGES - untold <= settled <= MESSAGES + repeats

        before = {it["pid"] for it in shown["workers"]}
        rolled = await to_thread.run_sync(fleet.command, "workers", "restart")
        assert rolled.code == 0, rolled.err
        after = fleet.snapshot()
        assert before.isdisjoint({it["pid"] for it in after["workers"]})
        assert after["pipelines"][0]["settled"] == pipeline["settled"]
        await fleet.publish(MESSAGES, 500, lambda: anyio.sleep(0))
        await to_thread.run_sync(fleet.until, lambda: len(fleet.handled()) == MESSAGES + 500)
        assert fleet.handled().total() == MESSAGES + 500 + repeats  # the roll repeats nothing

        pids = [it["pid"] for it in after["workers"]]
        for pid in (fleet.run.pid, *pids):  # as systemd signals a unit
            os.kill(pid, signal.SIGTERM)
        result = await to_thread.run_sync(fleet.end)
        assert result.code == 0, result.err
        assert not any(map(alive, pids))
        assert f"{fleet.name}: stopped after" in result.out
        assert "worker 2 died: killed by SIGKILL" in result.err
        assert "worker processes died 1 time; the log says when, and why" in result.err


async def test_no_counter_falls_when_a_worker_is_killed(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """Prometheus takes a counter that falls for a new one, and counts what it shows again."""
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.begin()
        fallen: list[str] = []

        def scrape(before: dict[str, float]) -> dict[str, float]:
            found = {
                f"{sample.name}{sample.labels}": sample.value
                for family in text_string_to_metric_families(fleet.get("/metrics")[1])
                for sample in family.samples
                if family.type in {"counter", "histogram"}
            }
            fallen.extend(it for it in before if found.get(it, 0) < before[it])
            return found

        async with anyio.create_task_group() as group:
            group.start_soon(fleet.publish, 0, 1_000_000, lambda: anyio.sleep(0.02))
            shown: dict[str, float] = {}
            for number in (0, 1):
                await anyio.sleep(1.5)
                for _ in range(5):
                    shown = await to_thread.run_sync(scrape, shown)
                    await anyio.sleep(0.1)
                os.kill(fleet.snapshot()["workers"][number]["pid"], signal.SIGKILL)
                for _ in range(5):
                    shown = await to_thread.run_sync(scrape, shown)
                    await anyio.sleep(0.2)
            group.cancel_scope.cancel()
        assert fallen == []


async def test_programs_of_handlers_end_with_a_worker_that_is_killed(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """Its messages are handled again, by programs that would run beside them."""

    def programs() -> list[int]:
        return [int(file.suffix[1:]) for file in tmp_path.glob("program.*")]

    with Fleet(embedded_broker, tmp_path) as fleet:
        fleet.write_module(
            "    import subprocess\n"
            "    with subprocess.Popen(['sleep', '100']) as program:\n"
            "        open(f'program.{program.pid}', 'w').close()\n"
        )
        await fleet.create()
        fleet.start(workers="1")
        await to_thread.run_sync(fleet.until, fleet.ready)
        pid = fleet.snapshot()["workers"][0]["pid"]
        await fleet.publish(0, 100, lambda: anyio.sleep(0))
        await to_thread.run_sync(fleet.until, programs)
        (program,) = programs()
        os.kill(pid, signal.SIGKILL)
        try:
            await to_thread.run_sync(fleet.until, lambda: not alive(program), 10)
        finally:
            fleet.run.kill()
            for each in {program, *programs()}:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)


async def test_a_worker_that_starts_while_a_database_is_away_waits_for_it(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """As the other workers do, whose attempts have not run out."""
    with Fleet(embedded_broker, tmp_path) as fleet:
        fleet.write_module(
            "\nfrom flowstream import SqliteSink"
            f"\nsource = SuperStreamProducer({fleet.name!r}, single_active=True)"
            "\nstored = Pipeline('stored', source)"
            "\nstored.sink('rows', SqliteSink('data/rows.sqlite3', 'rows', columns={'n': int},"
            "\n    row=lambda message: {'n': message.offset}, create=True))\n"
        )
        there, away = tmp_path / "data", tmp_path / "away"
        there.mkdir()
        await fleet.begin()
        there.rename(away)
        os.kill(fleet.snapshot()["workers"][1]["pid"], signal.SIGKILL)
        waits = "worker 2 died: cannot open the SQLite file"
        await to_thread.run_sync(fleet.until, lambda: waits in (tmp_path / "err").read_text())
        away.rename(there)
        await to_thread.run_sync(fleet.until, fleet.ready)
        fleet.run.send_signal(signal.SIGTERM)
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.OK, result.err


async def test_workers_end_with_their_parent(embedded_broker: Broker, tmp_path: Path) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.begin()
        pids = [it["pid"] for it in fleet.snapshot()["workers"]]
        assert all(map(alive, pids))
        fleet.run.kill()
        fleet.run.wait()
        deadline = time.monotonic() + 20
        while any(map(alive, pids)):
            assert time.monotonic() < deadline, "workers go on without their parent"
            await anyio.sleep(0.05)


async def test_workers_whose_event_loop_is_blocked_end_with_their_parent(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """They cannot drain: a handler blocks the event loop for good."""
    with Fleet(embedded_broker, tmp_path) as fleet:
        fleet.write_module("    time.sleep(1000)\n")
        await fleet.begin()
        pids = [it["pid"] for it in fleet.snapshot()["workers"]]
        await fleet.publish(0, 300, lambda: anyio.sleep(0))
        diaries = [tmp_path / f"handled.{pid}" for pid in pids]
        await to_thread.run_sync(fleet.until, lambda: all(it.stat().st_size for it in diaries))
        assert all(map(alive, pids))
        fleet.run.kill()
        fleet.run.wait()
        deadline = time.monotonic() + GRACE + 20
        while any(map(alive, pids)):
            assert time.monotonic() < deadline, "workers go on without their parent"
            await anyio.sleep(0.05)


async def test_a_module_that_ignores_sigterm_ends_once_it_is_imported(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.create()
        fleet.write_module(
            "\nimport signal"
            "\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
            "\nopen('ignores', 'w').close()"
            "\nwhile not os.path.exists('continue'): time.sleep(0.01)\n"
        )
        fleet.start()
        await to_thread.run_sync(fleet.until, (tmp_path / "ignores").exists)
        fleet.run.send_signal(signal.SIGTERM)
        await to_thread.run_sync(fleet.until, lambda: "draining" in (tmp_path / "err").read_text())
        (tmp_path / "continue").touch()
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.OK, result.err


async def test_a_halt_and_a_broken_roll(embedded_broker: Broker, tmp_path: Path) -> None:
    with Fleet(embedded_broker, tmp_path, poison=42) as fleet:
        await fleet.create()
        fleet.start("--log-format", "json")
        await to_thread.run_sync(fleet.until, fleet.ready)
        before = {it["pid"] for it in fleet.snapshot()["workers"]}
        fleet.write_module("\nraise ValueError('half edited')\n")
        rolled = await to_thread.run_sync(fleet.command, "workers", "restart")
        assert rolled.code == ExitCode.WORKER
        assert "half edited" in rolled.err
        assert {it["pid"] for it in fleet.snapshot()["workers"]} == before
        assert fleet.ready()
        await fleet.publish(0, 100, lambda: anyio.sleep(0))
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.HALTED
        assert "to continue without the failed message: flowstream run shop --discard" in result.out
        assert result.err.count('"exit_code": 7') == 1
        assert '"worker": ' in result.err


async def test_what_cannot_start_ends_the_run_at_once(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        fleet.start()  # its stream does not exist
        missing = await to_thread.run_sync(fleet.end)
        assert missing.code == ExitCode.STREAM_MISSING
        assert missing.err.count("error: ") == 1
        text = (tmp_path / "shop.py").read_text()
        (tmp_path / "shop.py").write_text(
            text.replace("SuperStreamProducer", "StreamProducer").replace(
                "single_active=True, ", ""
            )
        )
        fleet.start()
        plain = await to_thread.run_sync(fleet.end)
        assert plain.code == ExitCode.DECLARATION
        assert f"flowstream super-streams create {fleet.name}-shared --partitions N" in plain.err


@pytest.mark.slow
async def test_a_worker_that_does_not_answer_is_named(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.begin()
        pid = fleet.snapshot()["workers"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            silent = "worker 1: no answer for 1"
            await to_thread.run_sync(fleet.until, lambda: silent in fleet.get("/readyz")[1])
            assert fleet.get("/readyz")[0] == 503
            said = "worker 1 has not answered for 10 s: a handler blocks its event loop"
            await to_thread.run_sync(fleet.until, lambda: said in (tmp_path / "err").read_text())
        finally:
            os.kill(pid, signal.SIGCONT)
        await to_thread.run_sync(fleet.until, fleet.ready)
        fleet.run.send_signal(signal.SIGTERM)
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.OK
        assert result.err.count(said) == 1


async def test_a_hangup_while_the_run_starts_is_not_lost(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.create()
        fleet.start()
        await to_thread.run_sync(fleet.until, lambda: minds_hangup(fleet.run.pid))
        fleet.run.send_signal(signal.SIGHUP)
        said = "SIGHUP: the workers are starting; a restart follows"
        await to_thread.run_sync(fleet.until, lambda: said in (tmp_path / "err").read_text())
        await to_thread.run_sync(fleet.until, fleet.ready)
        fleet.run.send_signal(signal.SIGTERM)
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.OK, result.err


async def test_a_hangup_to_all_processes_ends_no_worker_that_imports_its_modules(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """As `systemctl kill --signal HUP` sends it."""
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.create()
        fleet.write_module(
            "\nopen(f'importing.{os.getpid()}', 'w').close()"
            "\nwhile not os.path.exists('continue'): time.sleep(0.01)\n"
        )
        fleet.start(workers="1")
        await to_thread.run_sync(fleet.until, lambda: [*tmp_path.glob("importing.*")])
        (worker,) = tmp_path.glob("importing.*")
        os.kill(int(worker.suffix[1:]), signal.SIGHUP)
        await anyio.sleep(0.2)
        (tmp_path / "continue").touch()
        await to_thread.run_sync(fleet.until, fleet.ready)
        fleet.run.send_signal(signal.SIGTERM)
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.OK
        assert "died" not in result.err


def minds_hangup(pid: int) -> bool:
    """Whether a process catches SIGHUP, or lets it wait."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"Sig(?:Cgt|Blk):\s*([0-9a-f]+)", status)
    return any(int(mask, 16) & 1 << signal.SIGHUP - 1 for mask in masks)


async def test_a_restart_gives_nothing_to_a_stopped_worker(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """All partitions were unread until it was killed."""
    with Fleet(embedded_broker, tmp_path) as fleet:
        (tmp_path / "pyproject.toml").write_text(
            f'[tool.flowstream.pipelines."{fleet.name}"]\ndrain_timeout = 1.0\n'
        )
        await fleet.begin()
        await to_thread.run_sync(fleet.until, lambda: fleet.readers() == {1, 2})
        streams = fleet.snapshot()["pipelines"][0]["streams"]
        pids = [it["pid"] for it in fleet.snapshot()["workers"]]
        rolled = anyio.Event()

        async def go_on() -> bool:
            await anyio.sleep(0.1)
            return rolled.is_set()

        async with anyio.create_task_group() as group:
            group.start_soon(fleet.publish, 0, 1_000_000, go_on)
            await to_thread.run_sync(fleet.until, lambda: len(fleet.handled()) > 300)
            os.kill(pids[1], signal.SIGSTOP)
            stopped = time.time()
            done = await to_thread.run_sync(fleet.command, "workers", "restart")
            rolled.set()
        assert done.code == 0, done.err
        for stream in (it["stream"] for it in streams if it["worker"] == 1):
            assert fleet.longest_pause(stream, stopped) < TAKEOVER
        assert not any(map(alive, pids))
        said = "worker 2 does not answer: the restart goes on when it has ended, in 6 s at most"
        assert said in (tmp_path / "err").read_text()


async def test_a_stopped_worker_does_not_hold_up_the_end_of_the_run(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """One signal is enough: what cannot drain is killed when its drain must be over."""
    with Fleet(embedded_broker, tmp_path) as fleet:
        (tmp_path / "pyproject.toml").write_text(
            f'[tool.flowstream.pipelines."{fleet.name}"]\ndrain_timeout = 1.0\n'
        )
        await fleet.begin()
        pids = [it["pid"] for it in fleet.snapshot()["workers"]]
        os.kill(pids[1], signal.SIGSTOP)
        fleet.run.send_signal(signal.SIGTERM)
        await to_thread.run_sync(  # the other one has drained, and nobody waits for it
            fleet.until, lambda: [it["number"] for it in fleet.snapshot()["workers"]] == [2]
        )
        result = await to_thread.run_sync(fleet.end, 60)
        assert result.code == ExitCode.DRAIN_TIMEOUT, result.err
        said = r"error: worker 2 did not answer for \d+ s while it drained, and was killed: "
        assert re.search(said, result.err), result.err
        assert not any(map(alive, pids))


async def test_a_worker_that_dies_while_the_run_drains_is_reported(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.begin()
        pid = fleet.snapshot()["workers"][1]["pid"]
        os.kill(pid, signal.SIGSTOP)  # it has not drained yet
        fleet.run.send_signal(signal.SIGTERM)
        await to_thread.run_sync(fleet.until, lambda: "draining" in (tmp_path / "err").read_text())
        os.kill(pid, signal.SIGKILL)
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.WORKER, result.err
        assert "error: worker 2 died while it drained: killed by SIGKILL" in result.err


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 11)"])
async def test_a_module_that_ends_its_process_ends_the_run(
    embedded_broker: Broker, tmp_path: Path, end: str
) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.create()
        fleet.write_module(f"\n{end}\n")
        fleet.start()
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.WORKER
        assert "error: worker 1 ended before it was ready: " in result.err
        assert "started again" not in result.err


async def test_a_file_is_published_once_by_all_workers(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    """The rate is that of the run, and both workers handle what is published."""
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.create()
        file = tmp_path / "orders.jsonl"
        file.write_text("".join(f'{{"n": {n}, "key": "k{n}"}}\n' for n in range(100)))
        fleet.start("--feed", f"{file}@200")
        await to_thread.run_sync(fleet.until, fleet.ready)
        await to_thread.run_sync(fleet.until, lambda: fleet.readers() == {1, 2})
        await to_thread.run_sync(fleet.until, lambda: len(fleet.handled()) > 300)
        fleet.run.send_signal(signal.SIGTERM)
        result = await to_thread.run_sync(fleet.end)
        assert result.code == ExitCode.OK
        assert result.err.count("(--feed)") == 1
        published = re.search(r"worker 1: published ([\d,]+) messages to", result.err)
        assert published is not None
        assert len(fleet.handled()) <= int(published[1].replace(",", ""))


LINES = """
import sys
from flowstream import IterableProducer, Message, Pipeline, SuperStreamProducer

lines = Pipeline("lines", IterableProducer(sys.stdin, threaded=True))

@lines.processor
async def show(message: Message[str]) -> None:
    print(message.data, end="", flush=True)
"""


def test_one_worker_reads_standard_input_as_one_process_does(tmp_path: Path) -> None:
    """It read nothing, and ended well."""
    (tmp_path / "lines.py").write_text(LINES)
    result = flowstream("run", "lines", "--workers", "1", cwd=tmp_path, stdin=b"one\ntwo\n")
    assert result.code == ExitCode.OK, result.err
    assert result.out.startswith("one\ntwo\nlines: ended"), result.out


async def test_a_source_that_has_ended_does_not_hold_up_until_idle(
    embedded_broker: Broker, tmp_path: Path
) -> None:
    with Fleet(embedded_broker, tmp_path) as fleet:
        await fleet.create()
        (tmp_path / "lines.py").write_text(LINES)
        fleet.write_module("\nfrom lines import lines\n")
        words = ("run", "shop", "lines", "--workers", "1", "--until-idle", "0.5")
        result = await to_thread.run_sync(
            lambda: flowstream(*words, url=fleet.broker.url, cwd=tmp_path, stdin=b"one\n")
        )
        assert result.code == ExitCode.OK, result.err
        assert "lines: ended after" in result.out
        assert f"{fleet.name}: idle after" in result.out


async def test_a_broker_that_cannot_share_partitions_is_refused(
    rabbitmq: Broker, tmp_path: Path
) -> None:
    if rabbitmq.version >= (3, 11):
        pytest.skip("RabbitMQ below 3.11 has no single active consumers")
    with Fleet(rabbitmq, tmp_path) as fleet:
        await to_thread.run_sync(declare_super_stream, rabbitmq, fleet.name, 2)
        fleet.start()
        refused = await to_thread.run_sync(fleet.end)
        assert refused.code == ExitCode.NOT_SUPPORTED
        assert refused.err.count("error: ") == 1
        assert "single_active needs RabbitMQ 3.11 or later. On this server one process" in (
            refused.err
        )
