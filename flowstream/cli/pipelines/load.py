"""The pipelines of `MODULE[:NAME]`.

A module is searched in the current directory first, as `python -m` does. Without NAME, the target
means every pipeline that the module declares: those in its variables, and those in a list, tuple or
dict at module level. NAME is a variable, or a pipeline's own name.

A pipeline that the module imports from another one is left out, so that nothing runs by accident or
twice; NAME selects it. A module that declares no pipeline, such as a package's `__init__.py`, means
the pipelines that it imports.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from flowstream import errors
from flowstream.cli.exit_codes import CommandError, ExitCode, exit_code
from flowstream.cli.output import logs
from flowstream.cli.output.progress import doing
from flowstream.pipeline import Pipeline
from flowstream.texts import describe, interrupts, is_a, text_of, type_name

FLOWSTREAM = os.path.dirname(errors.__file__)
LIBRARIES = (FLOWSTREAM, *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")))


def load_pipelines(targets: list[str]) -> dict[str, Pipeline]:
    """The pipelines of all targets, each by the target that means it alone.

    A pipeline that several targets mean is included once. Raises CommandError if two pipelines have
    the same name.
    """
    found: dict[str, Pipeline] = {}
    for target in targets:
        if targets.count(target) > 1:
            raise CommandError(f"{target} is given twice; give every target once", ExitCode.USAGE)
        for name, pipeline in load_target(target).items():
            if not _has(found, pipeline):
                found[name] = pipeline
    seen: dict[str, str] = {}
    for target, pipeline in found.items():
        other = seen.setdefault(pipeline.name, target)
        if other != target:
            raise CommandError(
                f"{other} and {target} are both named {pipeline.name!r}, and offsets are stored "
                "under this name; rename one of the pipelines",
                ExitCode.DUPLICATE_NAME,
            )
    return found


def load_target(target: str) -> dict[str, Pipeline]:
    """The pipelines of one target, as `load_pipelines` returns them."""
    if "://" in target:
        raise CommandError(
            "a module is expected, such as pipelines.orders, not an address", ExitCode.USAGE
        )
    module_name, _, name = target.partition(":")
    module = load_module(module_name)
    if name:
        return _named(module, name)
    found = pipelines_of(module)
    if not found:
        raise CommandError(
            f"{module_name} declares no pipeline; assign one to a variable of the module, such as "
            'pipeline = Pipeline("orders", StreamProducer("orders"))',
            ExitCode.NO_PIPELINE,
        )
    if len(found) == 1:
        return dict.fromkeys([target], *found.values())
    return {f"{module_name}:{name}": pipeline for name, pipeline in found.items()}


def pipelines_of_modules(targets: list[str]) -> list[Pipeline]:
    """All pipelines of the modules in the targets, each once."""
    modules = dict.fromkeys(target.partition(":")[0] for target in targets)
    return [pipeline for name in modules for pipeline in _all(load_module(name)).values()]


def pipelines_of(module: ModuleType) -> dict[str, Pipeline]:
    """NAME -> pipeline that the module declares, or that it imports if it declares none."""
    there = _all(module)
    own = {name: it for name, it in there.items() if not is_imported(it, module)}
    return own or there


def imported_by(targets: list[str]) -> Iterator[tuple[str, Pipeline]]:
    """(target, pipeline) for imported pipelines that are not run."""
    for target in targets:
        if ":" not in target:
            module = load_module(target)
            running = pipelines_of(module)
            yield from ((target, it) for it in _all(module).values() if not _has(running, it))


def is_imported(pipeline: Pipeline, module: ModuleType) -> bool:
    """Whether another module declares the pipeline and has it at module level.

    A pipeline made by a function of another module belongs to the module that calls the function.
    """
    home = sys.modules.get(pipeline.declaration.module)
    return home is not None and home is not module and _has(_all(home), pipeline)


def _all(module: ModuleType) -> dict[str, Pipeline]:
    """NAME -> pipeline for every pipeline at module level, each once.

    NAME is the variable, or the own name of a pipeline in a list, tuple or dict.
    """
    found: dict[str, Pipeline] = {}
    kept = list(vars(module).items())
    pairs = [(name, value) for name, value in kept if _is_pipeline(value)]
    pairs += [(it.name, it) for _, value in kept for it in _inside(value)]
    for name, pipeline in pairs:
        if not _has(found, pipeline):
            if name in found:
                raise CommandError(
                    f"{module.__name__}:{name} is ambiguous: one pipeline is in the variable "
                    f"{name}, "
                    "and another has this name; rename one of them",
                    ExitCode.DUPLICATE_NAME,
                )
            found[name] = pipeline
    return found


def _has(found: dict[str, Pipeline], pipeline: Pipeline) -> bool:
    return any(pipeline is other for other in found.values())


def _inside(value: Any) -> Iterator[Pipeline]:
    """The pipelines in a list, tuple or dict."""
    kind = type(value)
    items: Iterable[Any] = ()
    if kind is list or kind is tuple:
        items = value
    elif kind is dict:
        items = value.values()
    return (it for it in items if _is_pipeline(it))


def _is_pipeline(value: Any) -> bool:
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
    known = f"it has {', '.join(there)}" if there else "it has none"
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
    except errors.FlowstreamError as error:
        raise CommandError(f"{text_of(error)}{_place(error)}", exit_code(error)) from error
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise CommandError(_no_module(name, directory), ExitCode.MODULE_MISSING) from error
        raise CommandError(_broken(name, error), ExitCode.MODULE_BROKEN) from error
    except BaseException as error:  # also sys.exit(0), which would end the command with success
        if interrupts(error):
            text = f"{name}: interrupted while it was imported{_place(error)}"
            raise CommandError(text, ExitCode.FORCED) from error
        raise CommandError(_broken(name, error), ExitCode.MODULE_BROKEN) from error
    finally:
        logs.enable()


def _not_a_module(name: str) -> str:
    """The error for a path, with the module to write instead and the folder to run in."""
    if not name:
        return "a module is expected, such as pipelines.orders"
    here, full = Path.cwd(), Path(os.path.abspath(name))
    inside = full.is_relative_to(here) and full != here
    folder = here if inside else full.parent
    parts = list(Path(str(full.relative_to(folder)).removesuffix(".py")).parts)
    if parts[-1:] == ["__init__"] and len(parts) > 1:
        parts.pop()
    text = f"{name!r} is a path, and a module is expected"
    if not full.exists() and not full.with_suffix(".py").exists():
        return f"{text}, such as pipelines.orders; there is no file with this name"
    if not parts or not all(part.isidentifier() for part in parts):
        return f"{text}; rename the file: a module's name has only letters, digits and _"
    module = ".".join(parts)
    return f"{text}; write {module}" if inside else f"{text}; run in {folder} and write {module}"


def _no_module(name: str, directory: str) -> str:
    module, _, inside = name.rpartition(".")
    if module in sys.modules and not hasattr(sys.modules[module], "__path__"):
        return f"{module} is a module and no package; for a pipeline in it, write {module}:{inside}"
    return (
        f"there is no module {name!r} in {directory} or on the Python path; check the name, or run "
        f"in the directory that contains {name.split('.', maxsplit=1)[0]}"
    )


def _place(error: BaseException) -> str:
    """The line of an imported module where the error was raised: the one that its author wrote,
    and not one of a library that it calls."""
    where = library = ""
    for frame in traceback.extract_tb(error.__traceback__):
        file = frame.filename
        if file.startswith(("<", FLOWSTREAM)) or "importlib" in file:
            continue
        library = f" ({os.path.relpath(file)}, line {frame.lineno})"
        if not file.startswith(LIBRARIES):
            where = library
    return where or library


def _broken(name: str, error: BaseException) -> str:
    where, reason = _place(error), describe(error)
    if is_a(error, SyntaxError):
        wrong = cast(SyntaxError, error)
        reason = f"{type_name(wrong)}: {text_of(wrong.msg)}"
        if wrong.filename:
            where = f" ({os.path.relpath(wrong.filename)}, line {wrong.lineno})"
    text = f"{name} cannot be imported: {reason}{where}"
    if is_a(error, SystemExit):
        text += (
            "; `flowstream` imports the module, so put code that ends the process under "
            'if __name__ == "__main__":'
        )
    if is_a(error, RuntimeError) and "no running event loop" in reason:
        text += "; open clients that need one in the pipeline's lifespan="
    return text
