"""The code of Markdown pages, run as it stands there.

- ```` ```python ```` blocks of one page share a namespace and run from top to bottom; `await` may
  stand outside of functions.
- A block whose first line is a comment with a file's name (`# pipelines/orders.py`) is that file,
  in a folder of the page's own that is the current directory; it is there before the first block
  runs, and is not run itself.
- Files named `test_*.py` are run by pytest afterwards.
- FLOWSTREAM_URL names an empty embedded broker, `BROKER_URL` holds the same.
- ```` ```python fragment ```` is not run: it is no program (a signature, a part of something).

Line numbers in tracebacks are those of the page. `run_page` runs a page in a process of its own, so
that its modules and its event loop are its own. `run_pages` runs many short pages in one process,
because starting one takes longer than they do: each page has a folder, modules and a broker of its
own there, and none has tests for pytest.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"# ((?:[\w-]+/)*[\w-]+\.(?:py|toml|ini|cfg))$")
TIMEOUT = 110.0


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is where its code begins, counted from 1."""

    language: str
    words: tuple[str, ...]
    source: str
    line: int

    @property
    def file(self) -> str | None:
        """The file's name on the first line, if there is one."""
        found = FILE_NAME.match(self.source.split("\n", 1)[0])
        return None if found is None else found[1]

    @property
    def runs(self) -> bool:
        return self.language == "python" and self.file is None and "fragment" not in self.words


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(found[1], tuple(found[2].split()), found[3], text.count("\n", 0, found.start(3)) + 1)
        for found in FENCE.finditer(text)
    ]


def lay_out(page: Path, folder: Path) -> list[Path]:
    """Write the page's files into the folder; returns them. Two parts of one name are joined."""
    parts: dict[str, list[str]] = {}
    for block in blocks(page):
        if block.file is not None and "fragment" not in block.words:
            parts.setdefault(block.file, []).append(block.source)
    for name, sources in parts.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n\n".join(sources))
        if target.suffix == ".py" and target.parent != folder:
            (target.parent / "__init__.py").touch()  # not to be a part of another one's namespace
    return [folder / name for name in parts]


def run_page(page: Path, folder: Path, url: str) -> None:
    """Run all code of a page in `folder`; fails with what it said where that is not well."""
    files = lay_out(page, folder)
    if any(block.runs for block in blocks(page)):
        _python(folder, url, "-P", str(Path(__file__)), str(page))
    tests = [str(file) for file in files if file.name.startswith("test_")]
    if tests:
        unneeded = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist")
        _python(folder, url, "-m", "pytest", "-q", *unneeded, *tests)


def run_pages(pages: Sequence[Path], folder: Path) -> None:
    """Run pages in one process, each in a folder of its own; fails with what any of them said."""
    for page in pages:
        (folder / page.stem).mkdir()
        lay_out(page, folder / page.stem)
    _python(folder, "", "-P", str(Path(__file__)), *map(str, pages))


def _python(folder: Path, url: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "FLOWSTREAM_URL": url, "PYTHONPATH": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"\n{done.stdout}\n{done.stderr}"


def run_blocks(page: Path) -> None:
    """Run the page's blocks here, one after the other; those that await share one event loop."""
    module = types.ModuleType("page")
    module.__dict__["BROKER_URL"] = os.environ.get("FLOWSTREAM_URL")
    sys.modules[module.__name__] = module
    with asyncio.Runner() as runner:
        for block in blocks(page):
            if not block.runs:
                continue
            code = compile(
                "\n" * (block.line - 1) + block.source,
                str(page),
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            )
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(types.FunctionType(code, module.__dict__)())
            else:
                exec(code, module.__dict__)


def run_each(pages: Sequence[Path], folder: Path) -> None:
    """Run pages that were laid out below `folder`; ends the process with all that went wrong."""
    from flowstream.testing import broker_in_thread

    failures = []
    known = {*sys.modules}
    for page in pages:
        os.chdir(folder / page.stem)
        sys.path.insert(0, str(folder / page.stem))
        with broker_in_thread() as broker:
            os.environ["FLOWSTREAM_URL"] = broker.url
            try:
                run_blocks(page)
            except Exception:
                failures.append(f"{page}\n{traceback.format_exc()}")
        sys.path.pop(0)
        for name in {*sys.modules} - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(folder):
                del sys.modules[name]
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]]
    if len(named) == 1:
        run_blocks(named[0])
    else:
        run_each(named, Path.cwd())
