"""Takes the screenshots of README and docs: the shop's live page, for a minute at work.

python -m tests.monitor.screenshots      (`make screenshots`; needs chromium, see browser.py)
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from anyio import to_thread

from tests.monitor.browser import DESKTOP, PHONE, WHY_NOT, browser, installed
from tests.monitor.shop import shop

FOLDER = Path(__file__).parents[2] / "docs" / "images"
WARM_UP = 60.0
"""Seconds the shop works before: the charts should show something."""

SHOTS = (
    ("live-page.webp", DESKTOP, False),
    ("live-page-dark.webp", DESKTOP, True),
    ("live-page-phone.webp", PHONE, False),
)


def take(address: str) -> None:
    """One picture of the whole page for each of SHOTS."""
    with browser() as window:
        for name, (width, height), dark in SHOTS:
            phone = width == PHONE[0]
            window.shape((width, height), dark=dark, phone=phone)
            window.driver.get(address)
            window.run("return document.fonts.ready")
            window.wait_for(".stage.calm, .stage.warm, .stage.hot")
            window.shape((width, window.height()), dark=dark, phone=phone)
            window.wait_for("svg path.moving")
            window.screenshot(FOLDER / name)
            if errors := window.errors():
                sys.exit("\n".join(errors))


async def main() -> None:
    if not installed():
        sys.exit(WHY_NOT)
    await anyio.Path(FOLDER).mkdir(parents=True, exist_ok=True)
    async with shop() as address:
        await anyio.sleep(WARM_UP)
        await to_thread.run_sync(take, address)
    for name, _, _ in SHOTS:
        size = (await anyio.Path(FOLDER / name).stat()).st_size
        print(f"{name}: {size // 1024} KB")


if __name__ == "__main__":
    anyio.run(main)
