"""Reads the signature of a handler when it is declared: its kind, payload type and resources."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ForwardRef, TypeAlias, TypeVar, get_args, get_origin

from flowstream.errors import ConfigurationError, UnsupportedPayloadType
from flowstream.pipeline.batch import Batch
from flowstream.pipeline.message import Failure, Message
from flowstream.pipeline.payload import can_decode
from flowstream.pipeline.slice import Slice
from flowstream.schema import is_plain
from flowstream.texts import describe, is_a, shown, text_of

Handler: TypeAlias = Callable[..., Any]
_DECLARING = (__name__, "flowstream.pipeline.pipeline")
"""The modules between a handler and its declaration: the frame above is that of the user."""

_NOT_EVALUATED: dict[str, Any] = {}
_AS_TEXT: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    from annotationlib import Format

    _NOT_EVALUATED["annotation_format"] = Format.FORWARDREF
    _AS_TEXT["annotation_format"] = Format.STRING


def signature_of(function: Handler) -> inspect.Signature:
    """The signature; what an annotation names need not exist (PEP 649), so it may be a
    ForwardRef."""
    return inspect.signature(function, **_NOT_EVALUATED)


def _written(function: Handler) -> inspect.Signature:
    """The signature with the texts of its annotations, where Python evaluates them late."""
    return inspect.signature(function, **_AS_TEXT)


def bare_handler(
    arguments: tuple[Any, ...], values: Mapping[str, Any]
) -> tuple[Any, tuple[Any, ...]]:
    """(handler, no arguments) for a decorator without options; otherwise (None, arguments)."""
    if len(arguments) == 1 and not values and callable(arguments[0]):
        return arguments[0], ()
    return None, arguments


@dataclass(frozen=True, slots=True)
class Signature:
    """`payload` is T of `Message[T]`; `resource` the name of a second parameter, if any.

    `wanted` is the parameter to write if the first one has no annotation, such as
    `message: Message[Event]`; empty if it has one.
    """

    name: str
    is_async: bool
    payload: Any
    resource: str | None
    wanted: str = ""


def inspect_handler(handler: Handler, wraps: type, path: str) -> Signature:
    """Check a handler's parameters: the message (or batch), then optionally the resources.

    `wraps` is Message, Batch or list. Raises ConfigurationError.
    """
    name = getattr(handler, "__qualname__", None) or shown(handler)
    where = f"{path}: {name}"
    if not callable(handler):
        raise ConfigurationError(f"{path}: a handler must be a function, got {shown(handler)}")
    plain = _unwrap(handler)
    if inspect.isasyncgenfunction(plain) or inspect.isgeneratorfunction(plain):
        raise ConfigurationError(f"{where}: a handler must not be a generator (no `yield`)")
    parameters = _positional(handler, where)
    if not 1 <= len(parameters) <= 2:
        raise ConfigurationError(
            f"{where}: a handler takes the {wraps.__name__.lower()} and, if it needs them, the "
            f"resources of lifespan=; this one takes {len(parameters)} parameters"
        )
    first = parameters[0]
    if _has_reference(first.annotation):  # the error for a name quotes all of the annotation
        first = _written(handler).parameters[first.name]
    names = _names(handler, plain)
    if len(parameters) == 2:
        _check_second(parameters, wraps, names, where)
    missing = first.annotation is first.empty
    annotation = None if missing else _resolved(first.annotation, names, where)
    return Signature(
        name=name,
        is_async=not is_plain(plain),
        payload=_payload(annotation, wraps, names, where),
        resource=parameters[1].name if len(parameters) == 2 else None,
        wanted=f"{first.name}: {_example(None, wraps, names)}" if missing else "",
    )


def bind(handler: Handler, signature: Signature, resources: Any) -> Handler:
    """The handler, called with its resources."""
    if signature.resource is None:
        return handler
    parameter = signature_of(handler).parameters[signature.resource]
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return lambda first: handler(first, resources)
    return functools.partial(handler, **{signature.resource: resources})


def _unwrap(handler: Handler) -> Handler:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not inspect.isroutine(handler) and not isinstance(handler, type):
        call: Handler = type(handler).__call__.__get__(handler)
        return call
    return handler


def _positional(handler: Handler, where: str) -> list[inspect.Parameter]:
    try:
        parameters = signature_of(handler).parameters.values()
    except Exception as error:  # Python 3.14 evaluates annotations here
        raise ConfigurationError(
            f"{where}: its signature cannot be read: {text_of(error)}"
        ) from error
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for p in parameters:
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is p.empty:
            raise ConfigurationError(f"{where}: there is no value for the parameter {p.name!r}")
    return [
        p
        for index, p in enumerate(parameters)
        if p.kind in kinds and (index == 0 or p.default is p.empty)
    ]


def _check_second(
    parameters: list[inspect.Parameter], wraps: type, names: dict[str, Any], where: str
) -> None:
    """Raise for a second parameter that is the message: the handler would get the resources as it.

    What resources are annotated with need not exist at run time.
    """
    first, second = parameters
    annotation: Any = second.annotation
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, names)  # noqa: S307 - the module's own annotation
        except Exception:
            annotation = None
    found = (annotation, get_origin(annotation))
    wrong = any(it is kind for it in found for kind in (Message, Batch, Slice, Failure))
    if wrong or first.name in ("self", "cls"):
        raise ConfigurationError(
            f"{where}: the first parameter is the {wraps.__name__.lower()}, and the second one the "
            f"resources of lifespan=; this one begins with {first.name!r} (declare a method on its "
            "object, such as pipeline.processor(Orders().handle))"
        )


def _names(handler: Handler, plain: Handler) -> dict[str, Any]:
    """The names that an annotation may use: those of the module, and of where it was declared.

    The module is that of the function that was written, below the decorators of other libraries.
    """
    names: dict[str, Any] = {}
    for each in (plain, inspect.unwrap(plain), inspect.unwrap(handler)):
        names |= getattr(getattr(each, "__func__", each), "__globals__", {})
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _DECLARING:
        frame = frame.f_back
    return names | frame.f_locals


def _has_reference(annotation: Any) -> bool:
    return isinstance(annotation, ForwardRef) or any(map(_has_reference, get_args(annotation)))


def _resolved(annotation: Any, names: dict[str, Any], where: str) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # noqa: S307 - the module's own annotation
    except Exception as error:
        hint = "; import or define it above the handler, and not under `if TYPE_CHECKING:`"
        raise ConfigurationError(
            f"{where}: the annotation {annotation!r} cannot be resolved: {describe(error)}"
            f"{hint if is_a(error, NameError) else ''}"
        ) from error


def _payload(annotation: Any, wraps: type, names: dict[str, Any], where: str) -> Any:
    """T of Message[T], Batch[T] or list[Message[T]]; Any without an annotation."""
    if annotation is None or annotation is Any or annotation is wraps:
        return Any
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is not wraps or not arguments:
        found = getattr(annotation, "__qualname__", None) or shown(annotation)
        raise UnsupportedPayloadType(
            f"{where}: unsupported annotation {found}; annotate the first parameter as "
            f"{_example(annotation, wraps, names)}"
        )
    payload = arguments[0]
    if wraps is list and get_origin(payload) is Message:
        payload = get_args(payload)[0]
    if isinstance(payload, ForwardRef):  # Message["Order"]
        payload = _resolved(payload.__forward_arg__, names, where)
    if isinstance(payload, TypeVar):
        return Any if payload.__bound__ is None else payload.__bound__
    return payload


# -- what to write instead


def _example(annotation: Any, wraps: type, names: dict[str, Any]) -> str:
    """A valid annotation, with the type of the payload that was probably meant."""
    if wraps is Failure:
        return Failure.__name__
    try:
        meant = _meant(annotation) or _only_model(names)
    except Exception:  # users' classes, whose metaclasses may raise
        meant = ""
    message = "Message" if wraps is list else wraps.__name__
    example = f"{message}[{meant or 'T'}]"
    if wraps is list:
        example = f"list[{example}]"
    return example if meant else f"{example}, where T is the type of the payload"


def _meant(annotation: Any) -> str:
    """The type that payloads can be decoded to in an invalid annotation; "" if there is none."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if arguments and (origin in (Message, Batch) or get_origin(arguments[0]) is Message):
        return _meant(arguments[0])
    if not can_decode(annotation):
        return ""
    if origin is None:
        return str(annotation.__name__)
    return shown(annotation).replace("typing.", "")


def _only_model(names: dict[str, Any]) -> str:
    """The class for payloads that the handler's module defines, if it is the only one."""
    module = names.get("__name__")
    found = {
        id(each): each
        for each in names.values()
        if issubclass(type(each), type) and each.__module__ == module and can_decode(each)
    }
    return next(iter(found.values())).__name__ if len(found) == 1 else ""
