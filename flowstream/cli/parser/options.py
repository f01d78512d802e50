"""What commands share: options, help with examples, optional values, and the event loop."""

from __future__ import annotations

import functools
import inspect
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import note, without_addresses
from flowstream.texts import interrupts

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

T = TypeVar("T")

DEFAULT_URL = "rabbitmq-stream://guest:guest@localhost:5552/%2f"

BROKER, LOGIN = "Broker", "TLS and login"
"""Headings of options in the help on a terminal."""

COMMAND_LINE = "COMMAND"
"""The argument that is a command line of its own."""

NOT_TAKEN = "flowstream.not_taken"
"""Where a context keeps the words that are no value of the option in front of them."""

MOST_NUMBER = 1e9
"""Of seconds, or of messages a second."""

_URL = re.compile(r"\s*(rabbitmq-stream(\+tls)?|amqps?|https?):/", re.IGNORECASE)
_EXTRA = re.compile(r"(unexpected extra arguments?\S*) \(.*", re.DOTALL)

_NEGATIVE = re.compile(r"-[0-9.].*")
_SENTENCE = re.compile(r"(?<=[^.]\.)\s.*", re.DOTALL)

RICH_HELP = sys.stdout.isatty()
"""Whether help is drawn with Rich; a pipe gets plain text."""


class SaslMechanism(StrEnum):
    PLAIN = "PLAIN"
    EXTERNAL = "EXTERNAL"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    LOGFMT = "logfmt"


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="FLOWSTREAM_URL",
        metavar="URL",
        help="The broker: rabbitmq-stream://user:password@host:port/vhost "
        "(rabbitmq-stream+tls:// for TLS).",
        show_default="guest at localhost:5552",
        rich_help_panel=BROKER,
    ),
]
TlsCa = Annotated[
    str | None,
    typer.Option(
        "--tls-ca",
        envvar="FLOWSTREAM_TLS_CA",
        metavar="FILE",
        help="Authorities to trust instead of the system's (PEM).",
        rich_help_panel=LOGIN,
    ),
]
TlsCertificate = Annotated[
    str | None,
    typer.Option(
        "--tls-certificate",
        envvar="FLOWSTREAM_TLS_CERTIFICATE",
        metavar="FILE",
        help="This client's certificate, for mutual TLS (PEM).",
        rich_help_panel=LOGIN,
    ),
]
TlsKey = Annotated[
    str | None,
    typer.Option(
        "--tls-key",
        envvar="FLOWSTREAM_TLS_KEY",
        metavar="FILE",
        help="Its key (PEM).",
        rich_help_panel=LOGIN,
    ),
]
Sasl = Annotated[
    SaslMechanism | None,
    typer.Option(
        "--sasl",
        envvar="FLOWSTREAM_SASL",
        case_sensitive=False,
        metavar="HOW",
        help="PLAIN, or EXTERNAL: the client's certificate says who it is.",
        rich_help_panel=LOGIN,
    ),
]
LOGIN_OPTIONS = {
    "tls_ca": TlsCa,
    "tls_certificate": TlsCertificate,
    "tls_key": TlsKey,
    "sasl": Sasl,
}
"""Options of every command that connects, by their key in the settings."""

ManagementUrl = Annotated[
    str | None,
    typer.Option(
        "--management",
        envvar="FLOWSTREAM_MANAGEMENT",
        metavar="URL",
        help="The broker's management API; else on its host, port 15672 (15671 for TLS).",
        rich_help_panel=BROKER,
    ),
]
MaxBytes = Annotated[
    str | None,
    typer.Option(
        "--max-bytes", metavar="SIZE", help="Delete a stream's oldest segments above this: 20GB."
    ),
]
MaxAge = Annotated[
    str | None,
    typer.Option(
        "--max-age", metavar="TIME", help="Delete segments older than this: 30m, 12h, 7d."
    ),
]
SegmentBytes = Annotated[
    str | None,
    typer.Option("--segment-bytes", metavar="SIZE", help="Size of a segment, such as 100MB."),
]
IfMissing = Annotated[
    bool, typer.Option("--if-missing", help="Do nothing where it exists already.")
]
IfExists = Annotated[bool, typer.Option("--if-exists", help="Do nothing where it does not exist.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example per line, drawn as they stand."""
    if RICH_HELP:
        return "\n\n".join(["[bold]Examples[/bold]", *(f"  {line}" for line in lines)])
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


class Command(TyperCommand):
    """A command whose help on a terminal is as narrow as it can be, and that takes no address for
    a name: it would be quoted, with its password. A negative number is an argument like others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = flowing(self.help)
        self.short_help = first_sentence(self.help)
        leave_flags_bare(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, arguments_last(args, self.params))
        param: Any
        for param in self.params:
            value = ctx.params.get(param.name)
            words = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(word, float) and not abs(word) <= MOST_NUMBER for word in words):
                said = f"a number of at most {MOST_NUMBER:,.0f} is expected"
                raise typer.BadParameter(said, ctx, param)
            named = param.param_type_name == "argument" and param.metavar != COMMAND_LINE
            if named and any(_URL.match(str(word)) for word in words if word is not None):
                raise typer.BadParameter(
                    "this is an address, not a name; write --url in front of it", ctx, param
                )
        return rest

    def get_help_option(self, ctx: Any) -> Any:
        return bare(super().get_help_option(ctx))


class Group(TyperGroup):
    """The same for a command with others below it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.short_help = first_sentence(self.help)
        leave_flags_bare(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        return bare(super().get_help_option(ctx))

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with unquoted():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with unquoted():
            return super().invoke(ctx)


@contextmanager
def unquoted() -> Iterator[None]:
    """The parser's errors quote the line: without addresses' passwords, and without arguments that
    are too many, which may be the rest of a password with a space in it."""
    try:
        yield
    except Exception as error:
        usage: Any = error  # Typer keeps the class of its parser's errors to itself
        if hasattr(usage, "format_message"):
            said = without_addresses(str(usage.message))
            usage.message = _EXTRA.sub(r"\1; put quotes around a value with spaces in it", said)
        raise


def flowing(text: str | None) -> str | None:
    """Paragraphs without their line breaks: Rich would keep them, and break lines again."""
    if text is None:
        return None
    return "\n\n".join(part.replace("\n", " ") for part in inspect.cleandoc(text).split("\n\n"))


def first_sentence(text: str | None) -> str | None:
    """What a list of commands says of one; without it the list would cut off its help."""
    return None if text is None else _SENTENCE.sub("", " ".join(text.split()))


def arguments_last(args: list[str], params: Sequence[Any]) -> list[str]:
    """A line with a negative number among its arguments, as the parser takes it: the options, and
    the arguments behind `--`. Other lines stay as they are. Pure."""
    takes_value = {
        name: not option.is_flag
        for option in params
        if option.param_type_name == "option"
        for name in (*option.opts, *option.secondary_opts)
    }
    options: list[str] = []
    arguments: list[str] = []
    rest = iter(args)
    for word in rest:
        if word == "--":
            arguments += rest
        elif len(word) < 2 or word[0] != "-" or _is_number(word, takes_value):
            arguments.append(word)
        else:
            options.append(word)
            if takes_value.get(word) and (value := next(rest, None)) is not None:
                options.append(value)
    if any(_is_number(word, takes_value) for word in arguments):
        return [*options, "--", *arguments]
    return args


def _is_number(word: str, options: Mapping[str, bool]) -> bool:
    return _NEGATIVE.fullmatch(word) is not None and word[:2] not in options


def leave_flags_bare(options: Sequence[Any]) -> None:
    """Say no type behind an option that takes no value."""
    for option in options:
        if getattr(option, "is_flag", False):
            bare(option)


def bare(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


class App(typer.Typer):
    """Typer with commands of the class above; those with `url` have the options of a login too."""

    def command(self, name: str | None = None, **options: Any) -> Any:
        add = super().command(name, **{"cls": Command, **options})

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            add(with_login(function))
            return function

        return register


def with_login(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that connects with the options that every one of them has: given to the settings,
    which every connection is made by."""
    signature = inspect.signature(function, eval_str=True)
    url = signature.parameters.get("url")
    if url is None:
        return function

    @functools.wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        from flowstream.cli.configuration.settings import give

        login = {key: values.pop(key) for key in LOGIN_OPTIONS}
        give({key: value for key, value in login.items() if value is not None})
        return function(*args, **values)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters.append(parameter)
        if parameter is url:
            parameters += [
                parameter.replace(name=key, default=None, annotation=annotation)
                for key, annotation in LOGIN_OPTIONS.items()
            ]
    command.__dict__["__signature__"] = signature.replace(parameters=parameters)
    command.__annotations__ = {it.name: it.annotation for it in parameters}
    return command


def new_app(name: str | None = None, help: str = "", epilog: str | None = None) -> typer.Typer:
    """A Typer application with this project's habits."""
    return App(
        name=name,
        cls=Group,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        rich_markup_mode="rich" if RICH_HELP else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


@dataclass(frozen=True, slots=True)
class Optional:
    """An option that may stand without a value: it is then `value`.

    What follows the option is its value where all of it matches `pattern`, which `what` says in
    words.
    """

    value: str
    pattern: str
    what: str = "value"


def fill_optional_values(args: list[str], options: Mapping[str, Optional]) -> list[str]:
    """Give options that stand without a value theirs."""
    filled: list[str] = []
    for position, arg in enumerate(args):
        if arg == "--":
            return filled + args[position:]
        following = args[position + 1] if position + 1 < len(args) else ""
        option = options.get(arg)
        if option is not None and not re.fullmatch(option.pattern, following):
            filled.append(f"{arg}={option.value}")
        else:
            filled.append(arg)
    return filled


def not_taken(args: list[str], options: Mapping[str, Optional]) -> dict[str, str]:
    """Words that follow an option whose value they cannot be, and the option: they count as
    arguments."""
    end = args.index("--") if "--" in args else len(args)
    return {
        word: option
        for option, word in pairwise(args[:end])
        if option in options
        and not word.startswith("-")
        and not re.fullmatch(options[option].pattern, word)
    }


def command_with_optional_values(options: Mapping[str, Optional]) -> type[TyperCommand]:
    """A command class that knows which of its options may stand without a value."""

    class OptionalValues(Command):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            ctx.meta[NOT_TAKEN] = not_taken(args, options)
            return super().parse_args(ctx, fill_optional_values(args, options))

    return OptionalValues


def run_async(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run an async function on asyncio, with uvloop where it is installed."""
    import anyio

    use_uvloop = find_spec("uvloop") is not None
    options = {"use_uvloop": use_uvloop}
    try:
        return anyio.run(main, *args, backend="asyncio", backend_options=options)
    except BaseExceptionGroup as group:
        if interrupts(group):
            raise KeyboardInterrupt from group
        raise


async def on_signal(
    action: Callable[[], None], *, task_status: TaskStatus[None] | None = None
) -> None:
    """Call `action` for every signal that ends a process, until cancelled; started once it listens.

    SIGHUP, of a terminal that is closed, is one unless it is ignored (nohup).
    """
    await on_named_signal(lambda name: action(), task_status=task_status)


async def on_named_signal(
    action: Callable[[str], None], *, task_status: TaskStatus[None] | None = None
) -> None:
    """The same, with the signal's name (`SIGTERM`)."""
    import anyio

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with anyio.open_signal_receiver(*numbers) as signals:
        if task_status is not None:
            task_status.started()
        async for number in signals:
            action(signal.Signals(number).name)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; without a terminal only `--yes` will do.

    Any answer but yes, Ctrl-C too, ends the command with FORCED.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Add --yes to mean it", ExitCode.USAGE)
    try:
        sure = typer.confirm(question)
    except typer.Abort:
        sure = False
    if not sure:
        note("nothing was done")
        raise typer.Exit(ExitCode.FORCED)


def pattern(text: str | None) -> re.Pattern[str] | None:
    """A pattern from the command line."""
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise CommandError(f"{text!r} is no pattern: {error}", ExitCode.USAGE) from error
