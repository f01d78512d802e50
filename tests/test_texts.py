"""Texts about errors and values of users: made whatever those do, bounded, and encodable."""

from __future__ import annotations

import logging
import pickle
from contextlib import suppress
from traceback import format_exception
from typing import Any

import pytest

from flowstream import texts


class NoName(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override,misc]
        raise ValueError("no name")


class Hostile(Exception, metaclass=NoName):
    """Raises whatever it is asked."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit(3)

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise OSError("no notes")


class NoText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value] # noqa: PLE0307

    __repr__ = __str__


class Text(str):
    """A text that cannot be used."""

    __slots__ = ()

    def __str__(self) -> str:
        raise ValueError("no")

    def __getitem__(self, key: Any) -> str:
        raise ValueError("no")

    __len__ = __str__  # type: ignore[assignment]
    split = encode = translate = __format__ = __str__  # type: ignore[assignment]


class Huge(Exception):
    def __str__(self) -> str:
        return Text("x\ud800\x1b[2J\n" * 100_000)

    __repr__ = __str__


def hostile() -> BaseException:
    return Hostile()


def no_text() -> BaseException:
    return NoText()


def huge() -> BaseException:
    return Huge()


def surrogate() -> BaseException:
    return ValueError("\udc80\ud800")


def group() -> BaseException:
    return BaseExceptionGroup("both", [Hostile(), ValueError("x"), Huge()])


def deep_group() -> BaseException:
    error: Exception = Hostile()
    for _ in range(3000):
        error = ExceptionGroup("deep", [error, error])
    return error


def cycle() -> BaseException:
    first, second = Hostile(), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    return second


HOSTILE = [hostile, no_text, huge, surrogate, group, deep_group, cycle]


@pytest.mark.parametrize("make", HOSTILE, ids=[make.__name__ for make in HOSTILE])
def test_every_text_is_made_bounded_and_encodable(make: Any) -> None:
    error = make()
    for text, limit in (
        (texts.describe(error), texts.LIMIT),
        (texts.describe(error, 50), 50),
        (texts.text_of(error), texts.LIMIT),
        (texts.shown(error), texts.SHOWN),
        (texts.type_name(error), texts.NAME_LIMIT),
    ):
        assert type(text) is str
        assert 0 < len(text) <= limit
        assert text.encode().isascii() or "…" in text
        assert text.isprintable()
    trace = texts.traceback_of(error)
    assert len(trace.encode()) <= 3 * texts.TRACEBACK_LIMIT
    record = texts.printable(error)
    logging.Formatter().formatException((type(record), record, record.__traceback__))


def test_a_group_is_described_by_the_errors_in_it() -> None:
    error = ExceptionGroup("both", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])
    assert (
        texts.describe(error)
        == "ExceptionGroup: both (2 sub-exceptions): ValueError: a; KeyError: 'b'"
    )
    many = texts.describe(ExceptionGroup("many", [ValueError(n) for n in range(15)]))
    assert many.endswith("ValueError: 9; and 5 more")


def test_of_an_exception_that_is_raised_again_and_again_the_end_is_shown() -> None:
    """As one that a pool of connections keeps: each `raise` makes its traceback longer."""
    error = ConnectionError("the pool is closed")

    def taken() -> None:
        raise error

    def handled() -> None:
        taken()

    for _ in range(3_000):
        with suppress(ConnectionError):
            handled()
    for text in (texts.traceback_of(error), "".join(format_exception(texts.printable(error)))):
        assert "ConnectionError: the pool is closed" in text
        assert "in taken\n" in text
        assert text.count("in taken\n") <= texts.END_FRAMES


def test_the_deepest_recursion_is_shown_in_full() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    assert "[Previous line repeated 9" in texts.traceback_of(caught.value)


def test_common_errors_read_as_ever() -> None:
    assert texts.describe(ValueError("no\n  way")) == "ValueError: no way"
    assert texts.describe(SystemExit()) == "SystemExit"
    assert texts.text_of(ValueError()) == "ValueError"
    assert texts.shown("x" * 100) == "'" + "x" * 78 + "…"
    error = ValueError("x")
    assert texts.printable(error) is error
    assert texts.traceback_of(error) == "ValueError: x\n"


def test_a_keyboard_interrupt_is_found_in_any_group() -> None:
    deep: BaseException = KeyboardInterrupt()
    for _ in range(2000):
        deep = BaseExceptionGroup("deep", [ValueError(), deep, deep])
    assert texts.interrupts(deep)
    assert not texts.interrupts(deep_group())
    assert not texts.interrupts(pickle.loads(pickle.dumps(ValueError())))


def test_a_class_cannot_pass_for_another() -> None:
    class Liar(Exception):
        __class__ = KeyboardInterrupt  # type: ignore[assignment]

    assert isinstance(Liar(), KeyboardInterrupt)
    assert not texts.interrupts(Liar())


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("order 17 unknown", "order … unknown"),
        ("order order-17a unknown", "order … unknown"),
        ("no customer 7f3e2a10-99aa-4bcd-8f11-0123456789ab", "no customer …"),
        ("no object deadbeef", "no object …"),
        ("<Order at 0x7fa1b2c3>", "<Order at …>"),
        ("refused by bob@example.com", "refused by …"),
        ("at 2026-11-28T10:00:00+00:00, 10.0.0.1:5552", "at …"),
        ("amount -5.25 is below 0", "amount … is below …"),
        ("ids [1, 2, 3] are there", "ids […] are there"),
        ("50% of 1,234", "…% of …"),
        ("amount must be positive", "amount must be positive"),
        ("", ""),
    ],
)
def test_texts_are_folded(text: str, folded: str) -> None:
    assert texts.folded(text) == folded
    assert texts.folded(folded) == folded
    assert texts.common(text, text) == text


def test_what_texts_have_in_common() -> None:
    assert texts.common("order 17 after 5 s", "order 18 after 5 s") == "order … after 5 s"
    assert texts.common("order … after 5 s", "order 19 after 6 s") == "order … after … s"
    assert texts.common("ids [1, 2]", "ids [1, 2, 3]") == "ids […]"


def test_folding_takes_no_time_for_what_others_wrote() -> None:
    for text in ("a" * 2048, "a-" * 1024, "1" * 2048, "a." * 1023 + "!", "@" * 2048, "+-" * 1024):
        for _ in range(100):
            texts.folded(text)


def test_the_last_note_of_an_error() -> None:
    error = ValueError("x")
    assert texts.last_note(error) == ""
    error.add_note("first")
    error.add_note("pipeline 'a':\n lifespan")
    assert texts.last_note(error) == "pipeline 'a': lifespan"
    assert len(texts.last_note(error, 5)) <= 5
    error.__notes__ = [7]  # type: ignore[list-item]
    assert texts.last_note(error) == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://me:pw@host/v", "amqp://me:***@host/v"),
        ("postgresql://me@corp.org:p/w#?@host/db", "postgresql://me@corp.org:***@host/db"),
        ("redis://:p@w@host:6379", "redis://:***@host:6379"),
        ("redis://:@host", "redis://:***@host"),
        ("http://host:80/a,amqp://me:pw@host", "http://host:***@host"),
        ("http://host:80/a", "http://host:80/a"),
        ("http://me@host/a:b", "http://me@host/a:b"),
    ],
)
def test_passwords_in_the_urls_of_a_text_are_hidden(url: str, shown: str) -> None:
    assert texts.without_passwords(f"cannot reach {url}, again") == f"cannot reach {shown}, again"


SECRET = "QXZJVKqxzjvkQXZJVK"
URL = f"postgresql://app:{SECRET}@db/shop"
PARTS = [SECRET[start : start + 4] for start in range(len(SECRET) - 3)]


@pytest.mark.parametrize("spare", [*range(-40, 3)])
def test_a_password_is_hidden_wherever_the_text_is_cut(spare: int) -> None:
    """Of a URL whose @ is behind the cut, and of one whose :// is before it."""

    def before(limit: int) -> Exception:
        return ConnectionError("x" * max(0, limit + spare - 20) + f" {URL} refused " + "y" * 5_000)

    error = before(texts.LIMIT)
    group = ExceptionGroup("both", [before(texts.LIMIT // texts.LEAVES)])
    chain = ConnectionError(f"{URL} " + "x" * (texts.TRACEBACK_LIMIT + spare))
    made = [
        texts.describe(error),
        texts.describe(group),
        texts.text_of(error),
        texts.shown(before(texts.SHOWN).args),
        texts.clipped(f"{' ' * (2 * texts.LIMIT + spare)}{URL} refused", texts.LIMIT),
        texts.traceback_of(chain),
    ]
    assert not [part for part in PARTS for text in made if part in text]


def test_hiding_takes_no_time_for_what_others_wrote() -> None:
    for text in (
        "://a:" * 50_000,
        "://" * 80_000,
        "a" * 250_000,
        "://a:b@" * 30_000,
        "@" * 250_000,
    ):
        texts.without_passwords(text)
