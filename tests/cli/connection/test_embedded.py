"""`flowstream run` on a broker of its own: asked for, or since none was named and none is there.

The first steps of everybody need the default port to themselves, so they are taken in a network
namespace of their own; where none can be made, on this machine's, if nothing listens there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from flowstream.broker import find_local_broker
from flowstream.cli.commands.new import SAMPLE
from flowstream.cli.connection.broker_choice import PORT
from flowstream.cli.connection.embedded import DATA
from tests.cli.command import TIMEOUT, Started, environment, flowstream, wait_until
from tests.cli.modules import handled, numbered, write_module
from tests.documents import ROOT

ISOLATED = ("unshare", "--map-root-user", "--net")

STEPS = f"""
flowstream() {{ {sys.executable} -m flowstream "$@"; }}
until_it_says() {{ until grep -q "$1" "$2"; do kill -0 $run; sleep 0.05; done; }}
set -e
flowstream new shop >new.txt
{sys.executable} -m flowstream run shop >first.txt 2>first.err & run=$!
until_it_says 'created the stream shop.dead' first.err
echo '{SAMPLE}' | flowstream publish shop - --json >published.json
until_it_says '^stored 1' first.txt
kill -INT $run
wait $run
flowstream run shop --until-idle 0.2 --json >second.json 2>second.err
"""


@cache
def isolated() -> bool:
    """Whether a network namespace with a loopback of its own can be made here."""
    try:
        line = [*ISOLATED, "ip", "link", "set", "lo", "up"]
        return subprocess.run(line, capture_output=True, timeout=TIMEOUT).returncode == 0
    except OSError:
        return False


def port_is_taken() -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("localhost", PORT)) == 0


def bash(script: str, folder: Path) -> None:
    """Run a script where nothing listens on the default port."""
    if not isolated() and port_is_taken():
        pytest.skip(f"something listens on {PORT}, and no network namespace can be made")
    prefix, up = (ISOLATED, "ip link set lo up\n") if isolated() else ((), "")
    done = subprocess.run(
        [*prefix, "bash", "-c", up + script],
        cwd=folder,
        env=environment(None, {"PYTHONUNBUFFERED": "1"}),
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_from_nothing_to_a_pipeline_that_goes_on_where_it_was(tmp_path: Path) -> None:
    bash(STEPS, tmp_path)

    def said(name: str) -> str:
        return (tmp_path / name).read_text()

    def notes(name: str) -> list[str]:
        """Without what only a busy machine tells of: an event loop that was blocked, a start that
        takes seconds, a broker that is not there yet, and the status line of every ten seconds."""
        slow = re.compile(
            r"20\d\d-|\s|waiting for the broker at |"
            r"\S+( \S+)?: ((starting|connecting) for |running, )"
        )
        return [line for line in said(name).splitlines() if not slow.match(line)]

    broker, why, *created, draining = notes("first.err")
    where = re.escape(str(tmp_path / DATA))
    assert re.fullmatch(
        rf"broker: flowstream \S+ at 127\.0\.0\.1:5552, embedded, data in {where}", broker
    )
    assert why.startswith(
        "no address was given (--url or FLOWSTREAM_URL) and no broker listens on localhost:5552"
    )
    assert created == ["created the stream shop", "created the stream shop.dead"]
    assert draining.startswith("draining: ")
    handled, stopped, *rest = said("first.txt").splitlines()
    assert handled == "stored 1, 2.5 in total"
    assert re.match(r"shop: stopped after .+, 1 message handled \(1 ok\)", stopped)
    assert rest == ["  shop: committed offset 0", "  to continue: flowstream run shop"]
    (second,) = json.loads(said("second.json"))
    assert (second["handled"], second["committed"]) == (0, {"shop": 0})
    assert notes("second.err") == [broker, why]
    assert (tmp_path / DATA / ".gitignore").read_text() == "*\n"


# -- the demo of `make run`, whatever is on the default port

LISTENERS = {
    "nothing": ("true", ""),
    "silence": (
        "import socket, time; s = socket.create_server(('localhost', 5552)); time.sleep(600)",
        "something that accepts connections and does not answer listens there; give the address",
    ),
    "http": (
        "import http.server as h; "
        "h.HTTPServer(('localhost', 5552), h.SimpleHTTPRequestHandler).serve_forever()",
        "an HTTP server (SimpleHTTP/",
    ),
    "broker": (
        "import sys; from flowstream.cli import main; "
        "sys.argv[1:] = ['broker', '--memory']; main()",
        "used because no address was given; --create creates missing streams there, --embedded",
    ),
}
LOADED = (
    "import sqlite3; orders = sqlite3.connect('orders.sqlite3'); "
    "exit(not orders.execute('SELECT count(*) FROM orders').fetchone()[0])"
)
DEMO = f"""
until_it_says() {{{{ until grep -q "$1" "$2"; do kill -0 $run; sleep 0.05; done; }}}}
[ "{{listener}}" = true ] || {{{{
  {sys.executable} -c "{{listener}}" 2>/dev/null & listener=$!
  trap 'kill $listener' EXIT
  until (: </dev/tcp/localhost/{PORT}) 2>/dev/null; do kill -0 $listener; sleep 0.05; done
  {sys.executable} -m flowstream run pipelines.orders --until-idle 0.1 2>plain.err && exit 1
}}}}
set -e
{sys.executable} -m flowstream {{demo}} 127.0.0.1:0 --plain >demo.txt 2>demo.err & run=$!
until_it_says 'live page on' demo.err
until {sys.executable} -c "{LOADED}" 2>/dev/null; do kill -0 $run; sleep 0.05; done
kill -INT $run
wait $run
"""


@pytest.mark.slow
@pytest.mark.parametrize("taken", LISTENERS)
def test_the_demo_runs_whatever_is_on_the_default_port(taken: str, tmp_path: Path) -> None:
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    (demo,) = re.findall(r"flowstream (run .*) \$\(ARGS\)", (ROOT / "Makefile").read_text())
    listener, says = LISTENERS[taken]
    bash(DEMO.format(listener=listener, demo=demo), tmp_path)
    first, *_ = (tmp_path / "demo.err").read_text().splitlines()
    where = re.escape(str(tmp_path / DATA))
    assert re.fullmatch(rf"broker: flowstream \S+ at \S+, embedded, data in {where}", first)
    assert f":{PORT}," not in first
    summary = (tmp_path / "demo.txt").read_text()
    assert re.search(r"^orders: stopped after .+, [\d,]+ messages handled", summary, re.MULTILINE)
    if says:
        assert says in (tmp_path / "plain.err").read_text().splitlines()[-1]


# -- where it was asked for: on a free port, whatever is on the default one


def embedded_run(folder: Path, *options: str) -> Started:
    target = write_module(folder, "shop", drain=0.5)
    return Started("run", target, "--embedded", "--json", *options, cwd=folder)


@pytest.mark.slow
def test_other_commands_in_the_folder_use_the_broker_of_a_run(tmp_path: Path) -> None:
    with embedded_run(tmp_path) as run:
        line = run.line("^broker: ")
        url = re.search(r"--url (\S+)", run.line("commands in this folder"))
        assert url is not None
        run.line("created the stream shop.dead")
        sent = flowstream("publish", "shop", "-", cwd=tmp_path, stdin=numbered(20))
        assert sent.code == 0, sent.err
        wait_until(lambda: len(handled(tmp_path)) == 19)
        lag = flowstream("lag", "shop", "--json", cwd=tmp_path)
        letters = flowstream("dead-letters", "list", "shop.dead", "--json", cwd=tmp_path)
        peek = flowstream("peek", "shop", "-n", "1", "--bodies", url=url[1], cwd=tmp_path.parent)
        second = flowstream("run", "shop", "--embedded", cwd=tmp_path)
        beside = flowstream("run", "shop", "--until-idle", "0.1", "--json", cwd=tmp_path)
        run.signal(signal.SIGINT)
        result = run.end()
    assert result.code == 0, result.err
    assert f", embedded, data in {tmp_path / DATA}" in line
    port = url[1].rpartition(":")[2].partition("/")[0]
    assert port != str(PORT)
    told = f"broker: embedded, at 127.0.0.1:{port}, run in this folder by process "
    assert (lag.json[0]["last_offset"], lag.err.startswith(told)) == (19, True)
    assert len(letters.json) == 1
    assert peek.out == '{"n":0}\n'
    assert second.code == 4
    assert f"--embedded: another broker uses the data in {tmp_path / DATA} (proc" in second.err
    assert "omit --embedded to use that broker, or run in another folder" in second.err
    assert beside.code == 0, beside.err
    assert f"127.0.0.1:{port}, embedded, run in this folder by process" in beside.err
    assert find_local_broker(tmp_path / DATA) is None
    assert "run in this folder" not in flowstream("lag", "shop", cwd=tmp_path).err


@pytest.mark.slow
@pytest.mark.parametrize("connecting", [True, False])
def test_a_broker_that_dies_ends_its_run(tmp_path: Path, connecting: bool) -> None:
    with embedded_run(tmp_path) as run:
        run.line("created the stream shop.dead")
        if not connecting:
            flowstream("publish", "shop", "-", cwd=tmp_path, stdin=numbered(1))
            wait_until(lambda: handled(tmp_path))
        running = find_local_broker(tmp_path / DATA)
        assert running is not None
        os.kill(running.process, signal.SIGKILL)
        result = run.end()
    assert result.code == 4, result.err
    assert "the embedded broker of this run has ended (exit code -9, see .flowstream" in result.err
    assert "run in this folder" not in flowstream("lag", "shop", cwd=tmp_path).err
    with embedded_run(tmp_path, "--until-idle", "0.1") as again:
        result = again.end()
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--url", "rabbitmq-stream://x"), "--embedded and --url exclude each other"),
        (("--tls-ca", "ca.pem"), "--embedded and --tls-ca exclude each other"),
        (("--sasl", "EXTERNAL"), "--embedded and --sasl exclude each other"),
    ],
)
def test_what_does_not_go_with_it(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    target = write_module(tmp_path, "shop")
    result = flowstream("run", target, "--embedded", *options, cwd=tmp_path)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert not (tmp_path / DATA).exists()


@pytest.mark.slow
def test_a_flag_goes_before_variables_and_the_variable_before_files(tmp_path: Path) -> None:
    line = ("run", write_module(tmp_path, "shop"), "--until-idle", "0.1")
    nowhere, wish = (
        {"FLOWSTREAM_URL": "rabbitmq-stream://localhost:1"},
        {"FLOWSTREAM_EMBEDDED": "1"},
    )
    own = flowstream(*line, "--embedded", cwd=tmp_path, env=nowhere)
    assert own.code == 0, own.err
    assert "FLOWSTREAM_URL is not used in this run" in own.err
    named = flowstream(*line, "--url", "rabbitmq-stream://localhost:1", cwd=tmp_path, env=wish)
    assert (named.code, "localhost:1" in named.err) == (4, True)
    both = flowstream(*line, cwd=tmp_path, env=nowhere | wish)
    assert both.code == 2
    assert "FLOWSTREAM_EMBEDDED and FLOWSTREAM_URL exclude each other" in both.err
