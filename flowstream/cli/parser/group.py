"""The tree of commands: a command's module is imported when that command is used.

`LazyGroup` knows its commands from a table of names, modules and help lines, so that
`flowstream --help`, completion of a command's name and a mistyped name import none of them.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer.main
from typer.core import TyperCommand, TyperGroup

from flowstream.cli.output.console import without_addresses
from flowstream.texts import clipped

RICH_HELP = sys.stdout.isatty()
"""Whether help is drawn with Rich. A pipe gets plain text."""

_EXTRA_ARGUMENTS = re.compile(r"(unexpected extra arguments?\S*) \(.*", re.DOTALL)
_QUOTED = 60
"""Characters of a value that an error quotes."""
_KINDS = {
    **dict.fromkeys(("int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_parsing", "finite_number"), "a number"),
}
"""What pydantic expects, by the type of its error."""
_LIMITS = {"ge": "{} or more", "gt": "more than {}", "le": "{} or less", "lt": "less than {}"}
_AFTER_SENTENCE = re.compile(r"(?<=[^.]\.)\s.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """A command or group of commands: its name, the module that has it, and its line of help.

    The module has an `app`: the group itself, or a Typer application with a command of this name.
    """

    name: str
    module: str
    help: str

    def load(self) -> Any:
        """Import the module and build the command."""
        app = import_module(self.module).app
        group = typer.main.get_group(app)
        return group if app.info.name == self.name else group.commands[self.name]


class Unloaded(TyperCommand):
    """Stands for a command in the list of commands, and loads it to parse its command line."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, help=entry.help, short_help=entry.help)
        self.entry = entry

    def make_context(self, *args: Any, **extra: Any) -> Any:
        # The parser goes on with the command of this context: the loaded one.
        return self.entry.load().make_context(*args, **extra)


def loaded(command: Any) -> Any:
    """The command itself, imported now if it was not."""
    return command.entry.load() if isinstance(command, Unloaded) else command


class Group(TyperGroup):
    """A command with others below it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.short_help: str | None = first_sentence(self.help)
        hide_types_of_flags(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        return without_metavar(super().get_help_option(ctx))

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with quotes_removed():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with quotes_removed():
            return super().invoke(ctx)


class LazyGroup(Group):
    """A group whose commands are those of `table`."""

    table: ClassVar[Sequence[Entry]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands.update({entry.name: Unloaded(entry) for entry in self.table})


def plainly(cause: Any) -> str | None:
    """What is wrong with a value, in our words; None if the parser's are not those of pydantic."""
    if type(cause).__name__ != "ValidationError":
        return None
    first = cause.errors()[0]
    value = repr(clipped(str(first["input"]), _QUOTED))
    limits = first.get("ctx", {})
    if first["type"] in _KINDS:
        return f"{value} is not {_KINDS[first['type']]}"
    for limit, allowed in _LIMITS.items():
        if limit in limits:
            number = limits[limit]
            said = allowed.format(int(number) if number == int(number) else number)
            return f"{value}: {said} is expected"
    return str(limits["error"]) if "error" in limits else f"{value}: {first['msg']}"


@contextmanager
def quotes_removed() -> Iterator[None]:
    """Remove from the parser's errors what they quote of the command line and may be secret.

    That is a password in an address, and arguments that are too many: they may be the rest of a
    password with a space in it.
    """
    try:
        yield
    except Exception as error:
        usage: Any = error  # the class of the parser's errors is not public in Typer
        if hasattr(usage, "format_message"):
            text = without_addresses(plainly(usage.__cause__) or str(usage.message))
            usage.message = _EXTRA_ARGUMENTS.sub(r"\1; quote values that contain spaces", text)
        raise


# -- help


def examples(*lines: str) -> str:
    """The end of a command's help: one example per line."""
    if RICH_HELP:
        return "\n\n".join(["[bold]Examples[/bold]", *(f"  {line}" for line in lines)])
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def unwrapped(text: str | None) -> str | None:
    """Paragraphs without their line breaks. Rich would keep these and break lines again."""
    if text is None:
        return None
    return "\n\n".join(part.replace("\n", " ") for part in inspect.cleandoc(text).split("\n\n"))


def first_sentence(text: str | None) -> str | None:
    """The line for a command in a list of commands, where the parser would cut the help off."""
    return None if text is None else _AFTER_SENTENCE.sub("", " ".join(text.split()))


def hide_types_of_flags(options: Sequence[Any]) -> None:
    """Show no type in the help of options that take no value."""
    for option in options:
        if getattr(option, "is_flag", False):
            without_metavar(option)


def without_metavar(option: Any) -> Any:
    """The option, changed to show no type in its help."""
    if option is not None:
        option.metavar = ""
    return option
