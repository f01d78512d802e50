"""Takes screenshots of the live page, of every scene and as different people see it.

python -m tests.monitor.screenshots [FOLDER]   (`make screenshots`; needs chromium, see browser.py)

Without a folder those of SHOTS that the docs use are taken, into docs/images; with one, every scene
in light and dark and on a phone, to be looked at.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from tests.monitor.browser import DESKTOP, PHONE, WHY_NOT, Browser, browser, installed
from tests.monitor.scenes import LONG, SCENES, at_work

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "images"
WARM_UP = LONG + 15.0
"""Seconds the scenes work before: the charts should show something."""

SEEN = {"healthy": "running", "backlog": "lagging", "failing": "failing", "halting": "halted",
        "broker_gone": "not ready", "two_pipelines": "idle"}  # fmt: skip
"""The condition that is waited for in a scene."""
TIMEOUT = 120.0

SHORTEN = """
    const [root] = arguments;
    const shorten = () => {
      for (const each of document.querySelectorAll("pre")) {
        const text = each.textContent.replaceAll(root, "");
        if (each.textContent !== text) each.textContent = text;
      }
    };
    new MutationObserver(shorten).observe(document.body, {subtree: true, childList: true});
    shorten();
"""
"""Paths in tracebacks are those of the project, wherever it is; also after the page was updated."""
OPEN = ".reason summary"
"""What is clicked in the scene "failing": the first reason, with its traceback."""


@dataclass(frozen=True)
class Shot:
    """One picture: of a scene, at most `height` pixels of it."""

    name: str
    scene: str
    dark: bool = False
    phone: bool = False
    height: int = 2600
    click: str = ""


SHOTS = (
    Shot("live-page", "healthy"),
    Shot("live-page-dark", "failing", dark=True, height=1300, click=OPEN),
    Shot("live-page-phone", "healthy", phone=True, height=1700),
    Shot("live-page-backlog", "backlog", height=560),
    Shot("live-page-halted", "halting", height=700),
    Shot("live-page-broker-gone", "broker_gone", height=560),
    Shot("live-page-two", "two_pipelines", height=1060),
)


def every_shot() -> tuple[Shot, ...]:
    """Every scene, as everybody sees it."""
    return tuple(
        Shot(f"{scene}-{'phone-' if phone else ''}{'dark' if dark else 'light'}", scene,
             dark=dark, phone=phone, height=4000, click=OPEN)
        for scene in ("healthy", *SCENES)
        for dark, phone in ((False, False), (True, False), (False, True))
    )  # fmt: skip


def take(addresses: dict[str, str], shots: tuple[Shot, ...], folder: Path) -> None:
    """Take the pictures; ends with what the browser complains about."""
    with browser() as window:
        for shot in shots:
            _take(window, addresses[shot.scene], shot, folder)


def _take(window: Browser, address: str, shot: Shot, folder: Path) -> None:
    width, height = PHONE if shot.phone else DESKTOP
    window.shape((width, height), dark=shot.dark, phone=shot.phone)
    window.driver.get(address)
    window.run("return document.fonts.ready")
    _wait(window, SEEN[shot.scene])
    if shot.click:
        window.run("document.querySelector(arguments[0])?.click()", shot.click)
    window.wait_for("svg path.curve[d^=M]")
    shown = min(window.height(), shot.height)
    window.shape((width, shown), dark=shot.dark, phone=shot.phone)
    window.run(SHORTEN, f"{ROOT}/")
    window.screenshot(folder / f"{shot.name}.webp")
    if errors := window.errors():
        sys.exit("\n".join(errors))


def _wait(window: Browser, condition: str) -> None:
    shown = "return [...document.querySelectorAll('section .pill')].map(each => each.textContent)"
    give_up = time.monotonic() + TIMEOUT
    while condition not in window.run(shown):
        if time.monotonic() > give_up:
            sys.exit(f"no pipeline is {condition!r} within {TIMEOUT:.0f} s")
        time.sleep(0.2)


async def main() -> None:
    if not installed():
        sys.exit(WHY_NOT)
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    shots = every_shot() if sys.argv[1:] else SHOTS
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    async with at_work(sorted({shot.scene for shot in shots})) as addresses:
        await anyio.sleep(WARM_UP)
        await to_thread.run_sync(take, addresses, shots, folder)
    for shot in shots:
        size = (await anyio.Path(folder / f"{shot.name}.webp").stat()).st_size
        print(f"{shot.name}.webp: {size // 1024} KB")


if __name__ == "__main__":
    anyio.run(main)
