"""`flowstream new`: a small pipeline module and its test, which pass as written."""

from __future__ import annotations

import keyword
import sys
from importlib.util import find_spec
from pathlib import Path

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, say

INSTALL = "pip install mypy pytest"
"""Installs what the written files need to be tested and checked."""


def new(name: str, *, directory: Path) -> None:
    check_name(name)
    module, test = directory / f"{name}.py", directory / f"test_{name}.py"
    package = package_of(directory)
    imported = f"from {package} import {name}" if package else f"import {name}"
    write_all(
        {
            module: PIPELINE.replace("NAME", name),
            test: TEST.replace("import NAME", imported).replace("NAME", name),
        }
    )
    target = dotted(directory, name, package)
    say(f"wrote {module} and {test}")
    note("next:")
    note(f"  {INSTALL}")
    note(f"  pytest {test}")
    note(f"  mypy --strict {module} {test}")
    if target is None:
        note(f"  cd {directory}")
    note(f"  flowstream check {target or name}")
    note(f"  flowstream run {target or name} --create   # until Ctrl-C; in another terminal:")
    note(f"  echo '{SAMPLE}' | flowstream publish {name} -")


def check_name(name: str) -> None:
    """Raise CommandError unless `name` is a usable module name."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CommandError(
            f"{name!r} is not a valid module name; use letters, digits and _, such as orders",
            ExitCode.USAGE,
        )
    if name in sys.stdlib_module_names:
        raise CommandError(
            f"{name!r} would hide the module {name} of the standard library; choose another name",
            ExitCode.USAGE,
        )
    here = Path.cwd()
    spec = find_spec(name)
    if spec is not None and (spec.origin is None or not Path(spec.origin).is_relative_to(here)):
        raise CommandError(
            f"{name!r} would hide the installed package {name}; choose another name",
            ExitCode.USAGE,
        )


def package_of(directory: Path) -> str:
    """The dotted name of the package in the directory; empty if it is not a package."""
    parts: list[str] = []
    folder = directory.resolve()
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def dotted(directory: Path, name: str, package: str) -> str | None:
    """The module's name for `flowstream run` from here; None if it has to run in its directory."""
    folder, here = directory.resolve(), Path.cwd()
    if not folder.is_relative_to(here):
        return None
    parts = folder.relative_to(here).parts
    return ".".join((*parts, name)) if all(part.isidentifier() for part in parts) else None


def write_all(files: dict[Path, str]) -> None:
    """Write all files or none. Raises CommandError if one exists or cannot be written."""
    for path in files:
        if path.exists():
            raise CommandError(
                f"{path} exists already and is not overwritten; choose another name or --directory",
                ExitCode.USAGE,
            )
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise CommandError(
            f"cannot write {error.filename or directory_of(files)}: {error.strerror}; "
            "choose another --directory",
            ExitCode.USAGE,
        ) from error


def directory_of(files: dict[Path, str]) -> Path:
    return next(iter(files)).parent


# -- what is written; NAME stands for the module's name

SAMPLE = '{"id": 1, "value": 2.5}'
"""A message that the written pipeline takes."""

PIPELINE = '''"""Handle the messages of the stream `NAME`, a batch at a time."""

from flowstream import Batch, DeadLetter, Message, Pipeline, Retry, StreamProducer
from pydantic import BaseModel


class Event(BaseModel):
    """The JSON in a message's body."""

    id: int
    value: float


pipeline = Pipeline(
    "NAME",
    StreamProducer("NAME"),
    retry=Retry(attempts=3),
    on_failure=DeadLetter("NAME.dead"),
)


@pipeline.processor(concurrency=4, partition_by=lambda message: message.data.id)
async def check(message: Message[Event]) -> None:
    """Check one message. If this raises, the message fails and is retried."""
    if message.data.value < 0:
        message.fail("value must not be negative", retry=False)


@pipeline.batcher(size=100, batch_timeout=1.0)
def store(batch: Batch[Event]) -> None:
    """Store a batch, in a worker thread. Its offsets are committed after this returns."""
    total = sum(event.value for event in batch.data)
    print(f"stored {batch.size}, {total:g} in total")
'''

TEST = '''"""Tests of the pipeline in memory and in virtual time: no broker, no waiting."""

from flowstream.testing import Crash, PipelineTester

import NAME


def test_good_events_are_stored_together() -> None:
    tester = PipelineTester(NAME.pipeline)
    result = tester.run_sync({"id": 1, "value": 2.5}, {"id": 2, "value": 4})
    assert result.ok
    assert [batch.size for batch in result.batches] == [2]
    assert result.committed == {"NAME": 1}


def test_bad_events_become_dead_letters() -> None:
    tester = PipelineTester(NAME.pipeline)
    result = tester.run_sync({"id": 1, "value": -1}, b"no JSON")
    assert result.statuses == ["dead_lettered", "dead_lettered"]
    assert result[0].reason == "value must not be negative"
    assert [letter.phase for letter in tester.dead_letters()] == ["process", "decode"]


def test_nothing_is_lost_in_a_crash() -> None:
    tester = PipelineTester(NAME.pipeline)
    first = tester.run_sync({"id": 1, "value": 1}, Crash(), {"id": 2, "value": 2})
    assert first.crashed
    assert first.committed == {}
    again = tester.run_sync()
    assert [event.id for event in again.data] == [1, 2]
'''
