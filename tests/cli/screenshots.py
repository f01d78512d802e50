"""Takes the pictures of the terminal for the docs: `flowstream top` on the shop.

python -m tests.cli.screenshots      (`make screenshots` does it too; needs nothing but Python)
"""

from __future__ import annotations

import io
from pathlib import Path

import anyio
from anyio import to_thread

from flowstream.cli.commands.top import Watch, picture
from flowstream.cli.parser.parsing import parse_address
from flowstream.cli.readers.monitor_client import snapshot
from flowstream.client import Address
from tests.monitor.shop import shop

FOLDER = Path(__file__).parents[2] / "docs" / "images"
WARM_UP = 30.0
"""Seconds the shop works before: the charts should show something."""

SHOTS = {"terminal.svg": (80, 24)}

FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {terminal_width} {terminal_height}" role="img"
  aria-label="flowstream top in a terminal">
<style>
.{unique_id}-matrix {{
  font-family: "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect fill="#292929" width="{terminal_width}" height="{terminal_height}" rx="8"/>
<g clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own, without the window around it and without a font from elsewhere."""


def take(address: str) -> None:
    from rich.console import Console

    watch = Watch(Address(*parse_address(address)))
    watch.saw(snapshot(watch.address))
    for name, (width, height) in SHOTS.items():
        file = io.StringIO()
        console = Console(
            record=True, file=file, width=width, height=height, force_terminal=True, highlight=False
        )
        console.print(picture([watch], {}, 0.0, width, height))
        console.save_svg(str(FOLDER / name), code_format=FORMAT, title=name, unique_id="top")


async def main() -> None:
    async with shop(9464) as address:
        await anyio.sleep(WARM_UP)
        await to_thread.run_sync(take, address)
    for name in SHOTS:
        size = (await anyio.Path(FOLDER / name).stat()).st_size
        print(f"{name}: {size // 1024} KB")


if __name__ == "__main__":
    anyio.run(main)
