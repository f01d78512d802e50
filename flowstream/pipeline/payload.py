"""Decodes bodies to the payload type of `Message[T]`, a slice at a time.

| T | decoded by |
| --- | --- |
| bytes, Any, no annotation | as it is |
| str | UTF-8 |
| dict, list, dict[str, Any], list[Any] (JSON) | pydantic's JSON parser |
| pydantic model, dataclass, TypedDict, dict[...], list[...], a union of those | pydantic |
| msgspec.Struct, and the same of Structs | msgspec |

A NewType or a named alias is what it stands for, and a union may have None: the body `null`.

An AMQP 1.0 message may hold a value instead of bytes: a map, a list, a number. Without annotation
(or with Any) the handler gets it as it is; every other T converts it, or fails the message.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, Union, cast, get_args, get_origin, is_typeddict

import pydantic
import typing_extensions
from pydantic_core import from_json

from flowstream.errors import PayloadError, UnsupportedPayloadType
from flowstream.pipeline.handlers.return_checks import map_all
from flowstream.pipeline.message import Codec, Message
from flowstream.texts import is_a, reason_of, shown, text_of

Decode = Callable[[bytes], Any]


class Decoder(NamedTuple):
    """How a payload becomes T: `decode` takes bytes, `convert` a value in Python's own types. None
    means that the payload stays as it is. `kind` is the type of T's JSON values, where any is one.
    """

    decode: Decode | None = None
    convert: Callable[[Any], Any] | None = None
    kind: type | None = None

    def slice(self, bodies: list[bytes]) -> tuple[list[Any], list[tuple[int, PayloadError]]]:
        """The data of all bodies, and (index, error) of each that does not decode."""
        if self.decode is None:
            return list(bodies), []
        if self.kind is None:
            return decode_slice(self.decode, bodies)
        # Two calls of Python for each body would cost a quarter of the parser's time.
        data, _ = map_all(from_json, bodies)
        bad: list[tuple[int, PayloadError]] = []
        if set(map(type, data)) <= {self.kind}:
            return data, bad
        for index, value in enumerate(data):
            if type(value) is not self.kind:  # None, if it is no JSON
                [(_, error)] = decode_slice(self.decode, [bodies[index]])[1]
                data[index] = None
                bad.append((index, error))
        return data, bad

    def of(self, codec: Codec | None, raw: bytes) -> Any:
        """The data of one message."""
        payload = raw if codec is None else codec.payload(raw)
        if type(payload) is bytes:
            return payload if self.decode is None else self.decode(payload)
        if codec is None or self.convert is None:
            return payload
        return self.convert(codec.plain(payload))

    def again(self, message: Message[Any]) -> Any:
        """The data of a message as at its delivery, whatever a handler has assigned to it since.

        Raises what decoding raises.
        """
        delivery = message._delivery
        body = message.raw if delivery.objects is None else delivery.objects[message._index]
        return self.of(delivery.partition.codec, body) if type(body) is bytes else body


SUPPORTED = (
    "bytes, str, dict, list, a pydantic model, a dataclass, a TypedDict, a msgspec.Struct, "
    "dict[...] or list[...] of those, or a union of them, with None where a body may be null"
)


def decoder(payload: Any, *, handler: str = "the handler") -> Decoder:
    """How message bodies are decoded to `payload`.

    Raises UnsupportedPayloadType for a type that a message body cannot be decoded to.
    """
    payload = _meant(payload)
    if payload is Any:
        return Decoder()
    if payload is bytes:
        return Decoder(None, _only(bytes, "bytes"))
    if payload is str:
        return Decoder(_text, _only(str, "text"))
    if payload in (dict, list):
        return _json(payload)
    kind = get_origin(payload)
    if (kind, get_args(payload)) in ((dict, (str, Any)), (list, (Any,))):
        # pydantic would look at every key, and create strings that the parser remembers.
        return _json(kind)._replace(convert=_by_pydantic(payload).convert)
    if not _supported(payload):
        raise UnsupportedPayloadType(
            f"{handler}: a message cannot be decoded to {_name(payload)}; use {SUPPORTED}"
        )
    try:
        return _by_msgspec(payload) if _has_struct(payload) else _by_pydantic(payload)
    except Exception as error:  # whatever the fields of a user's type are annotated with
        raise UnsupportedPayloadType(
            f"{handler}: a message cannot be decoded to {_name(payload)}: {_why(error)}"
        ) from error


def can_decode(payload: Any) -> bool:
    """Whether bodies can probably be decoded to the type; only `decoder` knows for certain."""
    return payload in (bytes, str) or _supported(payload)


def decode_slice(
    decode: Decode, bodies: list[bytes]
) -> tuple[list[Any], list[tuple[int, PayloadError]]]:
    """Decode every body; one that does not decode leaves None in its place.

    Returns the data in order, and (index, error) of the bad ones.
    """
    data, bad = map_all(decode, bodies)
    return data, [(index, payload_error(error)) for index, error in bad]


def payload_error(error: BaseException) -> PayloadError:
    """The decoder's exception as one readable line."""
    if is_a(error, PayloadError):
        return cast(PayloadError, error)
    text = ""
    if is_a(error, pydantic.ValidationError):
        text = _located(cast(pydantic.ValidationError, error))
    wrapped = PayloadError(text or reason_of(error))
    wrapped.__cause__ = error
    return wrapped


def _located(error: pydantic.ValidationError) -> str:
    """Which fields are wrong, and why; empty if that is not known."""
    try:
        return "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}"
            for e in error.errors(include_url=False, include_context=False, include_input=False)[:5]
        )
    except Exception:  # a message of a validator of the user's
        return ""


def _text(body: bytes) -> str:
    return body.decode()


def _json(kind: type) -> Decoder:
    check = _only(kind, "a JSON object" if kind is dict else "a JSON array")

    def decode(body: bytes) -> Any:
        try:
            value = from_json(body)
        except ValueError as error:
            raise PayloadError(f"invalid JSON: {error}") from error
        return check(value)

    return Decoder(decode, check, kind)


def _only(kind: type, name: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise PayloadError(f"expected {name}, got {type(value).__name__}")
        return value

    return check


def _by_pydantic(payload: Any) -> Decoder:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(_known_to_pydantic(payload))
    return Decoder(adapter.validator.validate_json, adapter.validator.validate_python)


def _by_msgspec(payload: Any) -> Decoder:
    import msgspec

    convert = functools.partial(msgspec.convert, type=payload)
    return Decoder(msgspec.json.Decoder(payload).decode, convert)


def _why(error: Exception) -> str:
    """Why a type cannot be decoded to, on one line."""
    if is_a(error, pydantic.PydanticUserError):
        user_error = cast(pydantic.PydanticUserError, error)
        if user_error.code == "class-not-fully-defined":
            return "it names a type that is not defined yet; define that type above the handler"
        return text_of(user_error.message.splitlines()[0])
    return text_of(error)


def _meant(payload: Any) -> Any:
    """What a NewType or an alias (`type Event = ...`) stands for."""
    while True:
        if isinstance(payload, typing.NewType):
            payload = payload.__supertype__
        elif type(payload).__name__ == "TypeAliasType":  # Python 3.12's, or typing_extensions'
            payload = payload.__value__
        else:
            return payload


def _is_struct(kind: type) -> bool:
    return any(
        base.__module__.startswith("msgspec") and base.__name__ == "Struct" for base in kind.__mro__
    )


def _has_struct(payload: Any) -> bool:
    """Whether the type is a msgspec.Struct, or one is an argument of it, at any depth."""
    payload = _meant(payload)
    for kind in (payload, get_origin(payload)):
        if isinstance(kind, type) and _is_struct(kind):
            return True
    return any(map(_has_struct, get_args(payload)))


def _supported(payload: Any) -> bool:
    payload = _meant(payload)
    origin, arguments = get_origin(payload), get_args(payload)
    if origin is typing.Annotated:
        return _supported(arguments[0])
    if origin in (Union, types.UnionType):
        return all(arm is types.NoneType or _supported(arm) for arm in arguments)
    if origin in (dict, list):
        return True
    if isinstance(origin, type):
        payload = origin
    return isinstance(payload, type) and (
        payload in (dict, list)
        or issubclass(payload, pydantic.BaseModel)
        or dataclasses.is_dataclass(payload)
        or is_typeddict(payload)
        or _is_struct(payload)
    )


def _known_to_pydantic(payload: Any) -> Any:
    """The type with each `typing.TypedDict` in it as pydantic needs it before Python 3.12."""
    if sys.version_info >= (3, 12):
        return payload
    payload = _meant(payload)
    if is_typeddict(payload) and type(payload).__module__ == "typing":
        hints = typing.get_type_hints(payload, include_extras=True)
        fields = {
            name: typing_extensions.NotRequired[_known_to_pydantic(hint)]
            if name in payload.__optional_keys__
            else _known_to_pydantic(hint)
            for name, hint in hints.items()
        }
        make: Any = typing_extensions.TypedDict
        return make(payload.__name__, fields)
    origin, arguments = get_origin(payload), get_args(payload)
    if origin is typing.Annotated:
        return typing.Annotated[(_known_to_pydantic(arguments[0]), *payload.__metadata__)]
    if origin in (dict, list):
        made: Any = origin
        return made[tuple(map(_known_to_pydantic, arguments))]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_known_to_pydantic, arguments))]  # noqa: UP007 - made at run time
    return payload


def _name(payload: Any) -> str:
    if get_origin(payload) is None:
        return getattr(payload, "__qualname__", None) or shown(payload)
    return shown(payload).replace("typing.", "")
