"""Records a terminal for the README: a pipeline that is generated, run, and asked what failed.

python -m tests.cli.recording        (`make screenshots` does it too; needs nothing but Python)

The commands run on an embedded broker, and what they say is what is shown: as an SVG whose lines
appear one after the other. For readers who want no motion, it is the last screen.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from flowstream.testing import broker_in_thread
from tests.cli.command import environment

TARGET = Path(__file__).parents[2] / "docs" / "images" / "recording.svg"
COLUMNS, ROWS = 92, 21
LINE, LEFT, TOP, WIDTH = 19.0, 16.0, 26.0, 8.05
PAUSE, OUTPUT, END = 1.6, 0.12, 5.0
"""Seconds: after a command was typed, between two lines, and before it begins again."""

EVENTS = r"""printf '{"id": 1, "value": 2.5}\n{"id": 2, "value": 4}\n{"id": 3, "value": -1}\n'"""
COMMANDS = (
    "flowstream new clicks",
    "flowstream graph clicks",
    f"{EVENTS} | flowstream publish clicks - --create",
    "flowstream run clicks --create --until-idle 0.5",
    "flowstream dead-letters list clicks.dead --reasons",
)

FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"
  aria-label="A terminal in which a pipeline is generated, run, and asked what failed">
<style>
text {{ font: 13.4px "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace;
  fill: #d6dbe0; white-space: pre; }}
.typed {{ fill: #8fd0a0; }}
{rules}
@media (prefers-reduced-motion: reduce) {{ text, #screen {{ animation: none !important; }}
  #screen {{ transform: translateY(-{scrolled:g}px); }} }}
</style>
<rect width="{width:g}" height="{height:g}" rx="8" fill="#1b1f24"/>
<clipPath id="inside"><rect y="13" width="{width:g}" height="{inside:g}"/></clipPath>
<g clip-path="url(#inside)"><g id="screen">
{texts}
</g></g>
</svg>
"""


def session(folder: Path, url: str) -> list[tuple[str, str]]:
    """(command, what it says) of each command."""
    env = environment(url, {"NO_COLOR": "1", "COLUMNS": str(COLUMNS)})
    said = []
    for command in COMMANDS:
        source, _, ours = command.rpartition(" | ")
        feed = subprocess.run(["sh", "-c", source], capture_output=True, text=True, check=True)
        done = subprocess.run(
            ["flowstream", *shlex.split(ours)[1:]],
            cwd=folder, env=env, input=feed.stdout, capture_output=True, text=True, check=True,
        )  # fmt: skip
        said.append((command, done.stderr + done.stdout))
    return said


def rows(said: list[tuple[str, str]]) -> list[tuple[float, str, bool]]:
    """(when, text, typed) of each row of the terminal; long lines are wrapped, as there."""
    at = 0.0
    found: list[tuple[float, str, bool]] = []
    for command, text in said:
        for typed, line in [(True, f"$ {command}"), *((False, it) for it in text.splitlines())]:
            starts = range(0, max(len(line), 1), COLUMNS)
            found.extend((at, line[start : start + COLUMNS], typed) for start in starts)
            at += PAUSE / 2 if typed else OUTPUT
        at += PAUSE
    return found


def picture(found: list[tuple[float, str, bool]]) -> str:
    whole = found[-1][0] + END
    texts, rules = [], []
    for number, (at, line, typed) in enumerate(found):
        percent = 100 * at / whole
        kind = ' class="typed"' if typed else ""
        y = TOP + LINE * number
        if at:
            rules.append(
                f"@keyframes r{number} {{ 0%, {percent:.2f}% {{ opacity: 0 }} "
                f"{percent + 0.01:.2f}%, 100% {{ opacity: 1 }} }}\n"
                f"#r{number} {{ animation: r{number} {whole:.1f}s linear infinite; }}"
            )
        texts.append(f'<text id="r{number}" x="{LEFT:g}" y="{y:g}"{kind}>{escape(line)}</text>')
    steps = ["0% { transform: translateY(0) }"]
    for (number, (at, *_)), _ in pairwise([*enumerate(found), (0, (whole, "", False))]):
        if number >= ROWS:
            percent, now = 100 * at / whole, LINE * (number + 1 - ROWS)
            steps.append(f"{percent - 0.01:.2f}% {{ transform: translateY(-{now - LINE:g}px) }}")
            steps.append(f"{percent:.2f}% {{ transform: translateY(-{now:g}px) }}")
    scrolled = LINE * max(len(found) - ROWS, 0)
    steps.append(f"100% {{ transform: translateY(-{scrolled:g}px) }}")
    rules.append(f"@keyframes scroll {{ {' '.join(steps)} }}")
    rules.append(f"#screen {{ animation: scroll {whole:.1f}s linear infinite; }}")
    height = TOP + LINE * ROWS
    return FORMAT.format(
        width=2 * LEFT + WIDTH * COLUMNS, height=height, inside=height - 19, scrolled=scrolled,
        rules="\n".join(rules), texts="\n".join(texts),
    )  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, broker_in_thread() as broker:
        TARGET.write_text(picture(rows(session(Path(folder), broker.url))))
    print(f"{TARGET.name}: {TARGET.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
