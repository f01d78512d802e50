"""`flowstream new`: a small pipeline module and its test, which run and pass as written."""

from __future__ import annotations

import keyword
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from flowstream.cli.commands.new_templates import PIPELINE, SAMPLE, TEST
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, say
from flowstream.cli.parser.options import examples

INSTALL = "pip install mypy pytest"
"""All that the written files need to be tested and checked."""


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples("flowstream new orders", "flowstream new orders --directory pipelines")
    )(new)


def new(
    name: Annotated[
        str, typer.Argument(help="The module's, the pipeline's and the stream's name.")
    ],
    *,
    directory: Annotated[
        Path, typer.Option(help="Where to write; it is made if it does not exist.")
    ] = Path("."),
) -> None:
    """Write NAME.py, a small pipeline, and test_NAME.py, which tests it without a broker.

    Both pass pytest and mypy --strict as written: pip install mypy pytest installs
    those. Nothing is overwritten.
    """
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
    note(f"  flowstream run {target or name} --create   # until Ctrl-C; then in another terminal:")
    note(f"  echo '{SAMPLE}' | flowstream publish {name} -")


def check_name(name: str) -> None:
    """Raise CommandError unless a module may be called `name`."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CommandError(
            f"{name!r} cannot be a module's name: use letters, digits and _, such as orders",
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
    """The dotted name of the package that the directory is; empty where it is none."""
    parts: list[str] = []
    folder = directory.resolve()
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def dotted(directory: Path, name: str, package: str) -> str | None:
    """What `flowstream run` calls the module from here; None where it must be run from there."""
    folder, here = directory.resolve(), Path.cwd()
    if not folder.is_relative_to(here):
        return None
    parts = folder.relative_to(here).parts
    return ".".join((*parts, name)) if all(part.isidentifier() for part in parts) else None


def write_all(files: dict[Path, str]) -> None:
    """Write new files, all or none; raises CommandError where one exists or cannot be written."""
    for path in files:
        if path.exists():
            raise CommandError(
                f"{path} exists already and is left as it is; choose another name or --directory",
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
