"""`MODULE[:NAME]` -> the pipelines it names.

A module is looked for in the current directory first, as `python -m` does. NAME is the variable
that holds the pipeline, or the pipeline's own name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from flowstream import errors
from flowstream.cli.exits import CommandError, ExitCode
from flowstream.texts import describe, interrupts, is_a, text_of, type_name

if TYPE_CHECKING:
    from flowstream.pipeline import Pipeline


def load_pipelines(targets: list[str]) -> list[Pipeline]:
    """One pipeline per target, in order; two of one name in one run are refused."""
    pipelines = [load_pipeline(target) for target in targets]
    seen: dict[str, str] = {}
    for target, pipeline in zip(targets, pipelines, strict=True):
        other = seen.setdefault(pipeline.name, target)
        if other != target:
            raise CommandError(
                f"{other} and {target} are both named {pipeline.name!r}, and offsets are stored "
                "under that name; give one of the pipelines another name",
                ExitCode.DUPLICATE_NAME,
            )
        if targets.count(target) > 1:
            raise CommandError(f"{target} is given twice; name every pipeline once", ExitCode.USAGE)
    return pipelines


def load_pipeline(target: str) -> Pipeline:
    """The pipeline `MODULE[:NAME]` names; raises `CommandError` with its own exit code."""
    if "://" in target:
        raise CommandError(
            "this is an address, and a module is expected, such as pipelines.orders", ExitCode.USAGE
        )
    module_name, _, name = target.partition(":")
    module = load_module(module_name)
    found = pipelines_of(module)
    if name:
        return _named(module_name, name, found)
    if not found:
        raise CommandError(
            f"{module_name} declares no pipeline; assign one at module level, such as "
            'pipeline = Pipeline("orders", StreamProducer("orders"))',
            ExitCode.NO_PIPELINE,
        )
    if len(found) > 1:
        raise CommandError(
            f"{module_name} has several pipelines ({', '.join(found)}); name one, such as "
            f"{module_name}:{next(iter(found))}",
            ExitCode.SEVERAL_PIPELINES,
        )
    return next(iter(found.values()))


def neighbours(targets: list[str]) -> list[Pipeline]:
    """All pipelines of the modules that the targets name, each once."""
    modules = dict.fromkeys(target.partition(":")[0] for target in targets)
    return [pipeline for name in modules for pipeline in pipelines_of(load_module(name)).values()]


def pipelines_of(module: ModuleType) -> dict[str, Pipeline]:
    """Variable -> pipeline for every pipeline at module level; one under two names counts once."""
    from flowstream.pipeline import Pipeline

    found: dict[str, Pipeline] = {}
    for variable, value in vars(module).items():
        if issubclass(type(value), Pipeline) and not any(
            value is other for other in found.values()
        ):
            found[variable] = value
    return found


def _named(module_name: str, name: str, found: dict[str, Pipeline]) -> Pipeline:
    if name in found:
        return found[name]
    for pipeline in found.values():
        if pipeline.name == name:
            return pipeline
    known = f"it has {', '.join(found)}" if found else "it declares no pipeline"
    raise CommandError(f"{module_name} has no pipeline {name!r}; {known}", ExitCode.NO_PIPELINE)


def load_module(name: str) -> ModuleType:
    """Import `name` from the current directory or the Python path."""
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    if name.endswith(".py") or "/" in name or not name:
        raise CommandError(_not_a_module(name), ExitCode.MODULE_MISSING)
    try:
        return importlib.import_module(name)
    except errors.FlowstreamError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise CommandError(_no_module(name, directory), ExitCode.MODULE_MISSING) from error
        raise CommandError(_broken(name, error), ExitCode.MODULE_BROKEN) from error
    except BaseException as error:  # also sys.exit(0), which would end the command as a success
        if interrupts(error):
            raise
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


def _broken(name: str, error: BaseException) -> str:
    where = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and "importlib" not in file and file != __file__:
            where = f" ({os.path.relpath(file)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    told = describe(error)
    if is_a(error, SyntaxError):
        wrong = cast(SyntaxError, error)
        told = f"{type_name(wrong)}: {text_of(wrong.msg)}"
        if wrong.filename:
            where = f" ({os.path.relpath(wrong.filename)}, line {wrong.lineno})"
    return f"{name} cannot be imported: {told}{where}"
