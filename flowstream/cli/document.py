"""Writes the reference pages from the commands and the settings.

python -m flowstream.cli.document docs/
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from flowstream.cli.app import command_tree
from flowstream.cli.configuration.defaults import setting_of
from flowstream.cli.configuration.models import OPTIONS, kind_of, pipeline_options
from flowstream.cli.configuration.options import variable
from flowstream.cli.exit_codes import MEANINGS
from flowstream.cli.output.logs import INTERVAL, LIMIT
from flowstream.schema import Option

WRITTEN = "<!-- Written by `python -m flowstream.cli.document docs/`; do not edit. -->"

COMMAND_LINE = """\
# Command line

{written}

Every command has `--help` with examples, and every command that prints a result has `--json`.
Tables are drawn on a terminal and plain in a pipe, and are never cut off. `NO_COLOR` is honoured.

Results go to standard output; notes, warnings and errors go to standard error. An error is one
line, `error: ...`, with its own [exit code](#exit-codes). `--debug` adds the traceback.

A command that takes longer than a second shows on standard error what it is doing and how far it
is: on a terminal in a line that is rewritten, elsewhere in a plain line every five seconds.

A command that is interrupted with Ctrl-C ends with exit code 130. For commands that run until
Ctrl-C, it is the regular end, with exit code 0: `run` (which drains first), `broker`, `tail`, `top`
and `publish --loop`.

Options that have a variable can be set in the environment, in `.env` and in `pyproject.toml`: see
[configuration](configuration.md).

`flowstream --install-completion` installs completion of commands, options and values for the
current shell; `--show-completion` prints what it would install. For another shell,
`_FLOWSTREAM_COMPLETE=source_zsh flowstream` (or `source_bash`, `source_fish`) prints the script.
"""

CONFIGURATION = """\
# Configuration

{written}

The first of these places that has a value decides:

1. an option on the command line: `--http :9464`
2. the environment: `FLOWSTREAM_HTTP=:9464`
3. the file `.env` in the current directory, with the same names
4. `[tool.flowstream]` in the nearest `pyproject.toml`, from the current directory upwards
5. the default

```toml
[tool.flowstream]
management = "https://rabbit.example.com:15671"
tls_ca = "certificates/ca.pem"
http = ":9464"
log_format = "json"

[tool.flowstream.pipelines.orders]
max_in_flight = 2000
drain_timeout = 50
```

The broker's address contains a password: keep it in the environment or in `.env`, outside of the
repository.

```sh
FLOWSTREAM_URL=rabbitmq-stream+tls://orders:secret@rabbit.example.com:5551/shop
```

Several brokers of one cluster are written as `rabbitmq-stream://user:password@b1:5552,b2:5552/shop`,
and are tried in this order. In user and password, percent-encode every character except ASCII
letters, digits and `-._~!$&'()*+,;=:`, such as `/` as `%2F` and `@` as `%40`; in Python:
`urllib.parse.quote(password, safe="")`. The error for an invalid URL does not show it.

Without an address, commands connect to the embedded broker that runs in the current folder, if
there is one (a run with `--embedded`, or `flowstream broker`, says in `.flowstream/` where it
listens), else to `localhost:5552`. `flowstream run` starts an embedded broker if nothing listens
there, and always with `embedded`; its first line says which broker it uses and where the data is.
`embedded` and `url` exclude each other in the same place; otherwise the place with the higher
precedence decides.

`flowstream config` prints every value with its origin; `flowstream config run pipelines.orders
--http :9464` does so for that command line. Secrets are masked there and in every error. An unknown
key is refused, with its place and the closest known key:

```console
$ FLOWSTREAM_LOG_LEVL=info flowstream run pipelines.orders
error: FLOWSTREAM_LOG_LEVL: there is no such setting; did you mean FLOWSTREAM_LOG_LEVEL?
```

Variables such as `FLOWSTREAM_SERVICE_HOST`, which Kubernetes sets for a service of that name, are
ignored.
"""

MODULES = """\
## Modules and their pipelines

`run`, `check`, `graph` and `lag --pipeline` take modules: `flowstream run shop` runs every pipeline
that `shop.py` declares, and `flowstream run shop:eu` only the one in the variable `eu`, or with the
name `eu`.

- Pipelines in a list, tuple or dict are included: of `pipelines = [make("eu"), make("us")]`,
  `shop:eu` and `shop:us` are the pipelines by name, and `shop:pipelines` is both.
- A pipeline that is imported from the module that declares it is not run with the module's own
  pipelines; a note names it. `shop:NAME` selects it.
- A module that declares no pipeline runs those that it imports, so that a package's `__init__.py`
  may collect them.
- A pipeline that is named in two ways runs once.
"""

OPTIONS_OF_PIPELINES = """\
## Options of a pipeline

Options of a declaration can be changed where the pipeline runs, by its name: in the table
`[tool.flowstream.pipelines.NAME]`, or as `FLOWSTREAM_PIPELINES__NAME__OPTION`, where NAME has `_`
for every character that a variable's name cannot have. `flowstream check` shows what was changed,
and whether it fits the declaration.
"""

LOGS = """\
## Logs

flowstream uses Python's `logging`, with loggers below `flowstream`, and does not change the root
logger: a program that embeds a pipeline configures logging itself. `flowstream run` writes records
from `log_level` on to standard error, as `text`, or with `log_format` `json` or `logfmt` as one
line per record, with `time` in UTC and including its own notes. What Python itself would print
becomes a record, too: warnings (logger `py.warnings`), and exceptions that end a thread or are
ignored (`flowstream.run`).

Records have fields: `pipeline`, `stage`, `stream` and `offset`, and everything in `extra=` of your
own code. Records of a handler get these fields automatically (of a batch handler, `pipeline` and
`stage`); in your own program, add them with `handler.addFilter(flowstream.pipeline.add_place)`. Of
records with the same logger, message, pipeline and stream, {limit} are written in {interval:g}
seconds; the next one has the number of the others in `left_out`.

Your module may configure logging itself. `logging.config.dictConfig`, which Django and others
call, replaces the root logger's handlers, and so `log_level` and `log_format`. It also disables
all loggers that exist, unless you pass `"disable_existing_loggers": False`: `flowstream run`
enables its own again after it has imported your module, but in your own program that option is
needed.

Failures of messages are logged by reason: a warning for the first one, with its position and the
fields `phase` and `error`, its traceback at level debug, and then at most one line a minute with
the `count` of the others. Dead-lettered and discarded messages are logged in the same way. See [Why
messages fail](concepts.md#why-messages-fail).
"""


def command_line() -> str:
    """docs/cli.md."""
    parts = [COMMAND_LINE.format(written=WRITTEN)]
    for words, command in commands(command_tree()):
        parts.append("\n".join(section(words, command)))
    codes = [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    parts.append("\n".join(["## Exit codes", "", "| code | meaning |", "| ---: | --- |", *codes]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The groups and commands below a group, by name."""
    for name, child in sorted(command.commands.items()):
        if not child.hidden:
            yield (*words, name), child
            if hasattr(child, "commands"):
                yield from commands(child, (*words, name))


def section(words: tuple[str, ...], command: Any) -> Iterator[str]:
    """One command: what it does, its arguments and options, examples."""
    line = " ".join(("flowstream", *words))
    yield f"{'#' * (len(words) + 1)} {line}"
    yield ""
    yield "\n\n".join(filled(text) for text in (command.help or "").strip().split("\n\n"))
    shown = [option for option in command.params if not option.hidden and option.name != "help"]
    rows = [] if hasattr(command, "commands") else [row(option) for option in shown]
    if rows:
        yield ""
        yield "| argument or option | variable | default | meaning |"
        yield "| --- | --- | --- | --- |"
        yield from rows
    yield ""
    yield "```console"
    yield from (f"$ {text}" for text in examples(command))
    yield "```"


def filled(paragraph: str) -> str:
    """A paragraph as lines."""
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def row(option: Any) -> str:
    """One argument or option of a command."""
    if option.param_type_name == "argument":
        name = (option.metavar or option.name.upper()) + "..." * (option.nargs != 1)
        name = name if option.required else f"[{name}]"
    else:
        metavar = "" if option.is_flag else f" {_metavar(option)}"
        name = ", ".join([*option.opts, *option.secondary_opts]) + metavar
    variable = f"`{option.envvar}`" if setting_of(option) else ""
    default = "" if option.required or option.default in (None, False) else _text(option.default)
    return f"| `{_cell(name)}` | {variable} | {default} | {_cell(option.help or '')} |"


def examples(command: Any) -> list[str]:
    """The lines of a command's epilog."""
    lines = (line.strip() for line in (command.epilog or "").splitlines())
    return [line for line in lines if line.startswith("flowstream") or "| flowstream" in line]


def configuration() -> str:
    """docs/configuration.md."""
    flags = {
        key: option.opts[0]
        for _, command in commands(command_tree())
        for option in command.params
        if (key := setting_of(option)) is not None
    }
    settings = [
        f"| `{key}` | `{variable(key)}` | {_code(flags.get(key))} | {_kind(option)} "
        f"| {_code(_default(option))} | {_cell(option.text)} |"
        for key, option in OPTIONS.items()
    ]
    overrides = [
        f"| `{key}` | {_kind(option)} | {_cell(option.text)} |"
        for key, option in pipeline_options().items()
    ]
    parts = [
        CONFIGURATION.format(written=WRITTEN),
        "\n".join(
            [
                "## Settings",
                "",
                "| key | variable | option | type | default | meaning |",
                "| --- | --- | --- | --- | --- | --- |",
                *settings,
            ]
        ),
        MODULES,
        OPTIONS_OF_PIPELINES,
        "\n".join(["| option | type | meaning |", "| --- | --- | --- |", *overrides]),
        LOGS.format(limit=LIMIT, interval=INTERVAL),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _kind(option: Option) -> str:
    """The type of a setting in a word, or its choices."""
    kind = kind_of(option)
    if issubclass(kind, Enum):
        return ", ".join(f"`{choice.value}`" for choice in kind)
    names = {"SecretStr": "text, secret", "str": "text", "Path": "file", "bool": "true or false",
             "int": "whole number", "float": "number"}  # fmt: skip
    return names[kind.__name__]


def _default(option: Option) -> str | None:
    return None if option.default is None else _text(option.default).strip("`")


def _metavar(option: Any) -> str:
    """The placeholder for an option's value: its metavar, choices or type."""
    if option.metavar:
        return str(option.metavar)
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    while get_args(kind):
        kind = get_args(kind)[0]
    return {int: "NUMBER", float: "NUMBER", Path: "FILE"}.get(kind, "TEXT")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{getattr(value, 'value', value)}`"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"cli.md": command_line, "configuration.md": configuration}


def write(folder: Path) -> None:
    """Write the pages."""
    for name, make in PAGES.items():
        (folder / name).write_text(make())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
