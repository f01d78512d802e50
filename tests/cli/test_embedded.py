"""`flowstream run` where no broker was named and none is there: the first steps of everybody.

They need the default port to themselves, so they are taken in a network namespace of their own;
where none can be made, on this machine's, if nothing listens there.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from flowstream.cli.embedded import DATA, PORT
from flowstream.cli.templates import SAMPLE
from tests.cli.command import TIMEOUT, environment

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

    told, *created, draining = said("first.err").splitlines()
    assert re.match(r"no broker on localhost:5552 .* embedded one .* data in \.flowstream/", told)
    assert created == ["created the stream shop", "created the stream shop.dead"]
    assert draining.startswith("draining: ")
    handled, stopped, *rest = said("first.txt").splitlines()
    assert handled == "stored 1, 2.5 in total"
    assert re.match(r"shop: stopped after .+, 1 message handled \(1 ok\)", stopped)
    assert rest == ["  shop: committed offset 0", "  go on with: flowstream run shop"]
    (second,) = json.loads(said("second.json"))
    assert (second["handled"], second["committed"]) == (0, {"shop": 0})
    assert said("second.err").splitlines() == [told]
    assert (tmp_path / DATA / ".gitignore").read_text() == "*\n"
