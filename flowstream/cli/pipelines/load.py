"""`MODULE[:NAME]` -> the pipelines it names.

A module is looked for in the current directory first, as `python -m` does. Without NAME it names
every pipeline that the module declares: those in its variables, and those in a list, tuple or dict
of one. NAME is a variable, or a pipeline's own name.

A pipeline that a module imports from the one that declares it is not among them, so nothing runs
by accident, or twice; NAME reaches it. A module that declares none, such as a package's
`__init__.py`, names those that it imports.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from flowstream import errors
from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.progress import doing
from flowstream.texts import describe, interrupts, is_a, text_of, type_name

if TYPE_CHECKING:
    from flowstream.pipeline import Pipeline


def load_pipelines(targets: list[str]) -> dict[str, Pipeline]:
    """The pipelines that the targets name, by the target that names each alone.

    One that several targets name is there once; two of one name in one run are refused.
    """
    found: dict[str, Pipeline] = {}
    for target in targets:
        if targets.count(target) > 1:
            raise CommandError(f"{target} is given twice; name every pipeline once", ExitCode.USAGE)
        for name, pipeline in load_target(target).items():
            if not _has(found, pipeline):
                found[name] = pipeline
    seen: dict[str, str] = {}
    for target, pipeline in found.items():
        other = seen.setdefault(pipeline.name, target)
        if other != target:
            raise CommandError(
                f"{other} and {target} are both named {pipeline.name!r}, and offsets are stored "
                "under that name; give one of the pipelines another name",
                ExitCode.DUPLICATE_NAME,
            )
    return found


def load_target(target: str) -> dict[str, Pipeline]:
    """The pipelines `MODULE[:NAME]` names, as `load_pipelines` gives them.

    Raises `CommandError` with its own exit code.
    """
    if "://" in target:
        raise CommandError(
            "this is an address, and a module is expected, such as pipelines.orders", ExitCode.USAGE
        )
    module_name, _, name = target.partition(":")
    module = load_module(module_name)
    if name:
        return _named(module, name)
    found = pipelines_of(module)
    if not found:
        raise CommandError(
            f"{module_name} declares no pipeline; assign one at module level, such as "
            'pipeline = Pipeline("orders", StreamProducer("orders"))',
            ExitCode.NO_PIPELINE,
        )
    if len(found) == 1:
        return dict.fromkeys([target], *found.values())
    return {f"{module_name}:{name}": pipeline for name, pipeline in found.items()}


def neighbours(targets: list[str]) -> list[Pipeline]:
    """All pipelines of the modules that the targets name, each once."""
    modules = dict.fromkeys(target.partition(":")[0] for target in targets)
    return [pipeline for name in modules for pipeline in _all(load_module(name)).values()]


def pipelines_of(module: ModuleType) -> dict[str, Pipeline]:
    """NAME -> pipeline for those that the module declares; where it declares none, for those that
    it imports."""
    there = _all(module)
    own = {name: it for name, it in there.items() if not is_imported(it, module)}
    return own or there


def imported_by(targets: list[str]) -> Iterator[tuple[str, Pipeline]]:
    """(target, pipeline) of what modules import beside pipelines of their own, and is not run."""
    for target in targets:
        if ":" not in target:
            module = load_module(target)
            running = pipelines_of(module)
            yield from ((target, it) for it in _all(module).values() if not _has(running, it))


def is_imported(pipeline: Pipeline, module: ModuleType) -> bool:
    """Whether another module declares it: made elsewhere, and to be found there. What a function
    of another module makes belongs to who calls that."""
    home = sys.modules.get(pipeline.declaration.module)
    return home is not None and home is not module and _has(_all(home), pipeline)


def _all(module: ModuleType) -> dict[str, Pipeline]:
    """NAME -> pipeline for every pipeline at module level, each once: first those that have a
    variable, which is their NAME, then those in a list, tuple or dict, under their own name."""
    found: dict[str, Pipeline] = {}
    kept = list(vars(module).items())
    pairs = [(name, value) for name, value in kept if _is_pipeline(value)]
    pairs += [(it.name, it) for _, value in kept for it in _inside(value)]
    for name, pipeline in pairs:
        if not _has(found, pipeline):
            if name in found:
                raise CommandError(
                    f"{module.__name__}:{name} names two pipelines, a variable and another one's "
                    "own name; rename one of them",
                    ExitCode.DUPLICATE_NAME,
                )
            found[name] = pipeline
    return found


def _has(found: dict[str, Pipeline], pipeline: Pipeline) -> bool:
    return any(pipeline is other for other in found.values())


def _inside(value: Any) -> Iterator[Pipeline]:
    """The pipelines in a list, tuple or dict; a module's other values are not looked into."""
    kind = type(value)
    items: Iterable[Any] = ()
    if kind is list or kind is tuple:
        items = value
    elif kind is dict:
        items = value.values()
    return (it for it in items if _is_pipeline(it))


def _is_pipeline(value: Any) -> bool:
    from flowstream.pipeline import Pipeline

    return issubclass(type(value), Pipeline)


def _named(module: ModuleType, name: str) -> dict[str, Pipeline]:
    there = _all(module)
    target = f"{module.__name__}:{name}"
    if name in there:
        return {target: there[name]}
    for pipeline in there.values():
        if pipeline.name == name:
            return {target: pipeline}
    inside = [*_inside(vars(module).get(name))]
    if inside:
        names = {id(pipeline): known for known, pipeline in there.items()}
        return {f"{module.__name__}:{names[id(it)]}": it for it in inside}
    known = f"it has {', '.join(there)}" if there else "it declares no pipeline"
    raise CommandError(f"{module.__name__} has no pipeline {name!r}; {known}", ExitCode.NO_PIPELINE)


def load_module(name: str) -> ModuleType:
    """Import `name` from the current directory or the Python path."""
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    if name.endswith(".py") or "/" in name or not name:
        raise CommandError(_not_a_module(name), ExitCode.MODULE_MISSING)
    try:
        with doing(f"importing {name}", in_place=False):
            return importlib.import_module(name)
    except errors.FlowstreamError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise CommandError(_no_module(name, directory), ExitCode.MODULE_MISSING) from error
        raise CommandError(_broken(name, error), ExitCode.MODULE_BROKEN) from error
    except BaseException as error:  # also sys.exit(0), which would end the command as a success
        if interrupts(error):
            text = f"{name}: interrupted while it was imported{_place(error)}"
            raise CommandError(text, ExitCode.FORCED) from error
        raise CommandError(_broken(name, error), ExitCode.MODULE_BROKEN) from error


def _not_a_module(name: str) -> str:
    """Where a path leads, as a module and the folder to run from."""
    if not name:
        return "a module is wanted, such as pipelines.orders"
    here, full = Path.cwd(), Path(os.path.abspath(name))
    inside = full.is_relative_to(here) and full != here
    folder = here if inside else full.parent
    parts = list(Path(str(full.relative_to(folder)).removesuffix(".py")).parts)
    if parts[-1:] == ["__init__"] and len(parts) > 1:
        parts.pop()
    said = f"{name!r} is a path, and a module is wanted"
    if not full.exists() and not full.with_suffix(".py").exists():
        return f"{said}, such as pipelines.orders; there is no file of that name"
    if not parts or not all(part.isidentifier() for part in parts):
        return f"{said}; rename it: a module's name has letters, digits and _ only"
    module = ".".join(parts)
    return f"{said}; write {module}" if inside else f"{said}; run in {folder} and write {module}"


def _no_module(name: str, directory: str) -> str:
    return (
        f"there is no module {name!r} in {directory} or on the Python path; "
        f"run from the directory that holds {name.split('.', maxsplit=1)[0]}, or check the name"
    )


def _place(error: BaseException) -> str:
    """Where in the modules that were imported it was raised."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and "importlib" not in file and file != __file__:
            where = f" ({os.path.relpath(file)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return where


def _broken(name: str, error: BaseException) -> str:
    where, told = _place(error), describe(error)
    if is_a(error, SyntaxError):
        wrong = cast(SyntaxError, error)
        told = f"{type_name(wrong)}: {text_of(wrong.msg)}"
        if wrong.filename:
            where = f" ({os.path.relpath(wrong.filename)}, line {wrong.lineno})"
    text = f"{name} cannot be imported: {told}{where}"
    if is_a(error, SystemExit):
        text += (
            "; a module with pipelines is imported, so what ends the process belongs under "
            'if __name__ == "__main__":'
        )
    return text
