"""The reference pages, written from the command tree and the settings.

python -m flowstream.cli.document docs/
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.main import get_command

from flowstream.cli.app import app
from flowstream.cli.configuration.defaults import setting_of
from flowstream.cli.configuration.settings import PIPELINES, PREFIX, Settings, pipeline_overrides
from flowstream.cli.exit_codes import MEANINGS

WRITTEN = "<!-- Written by `python -m flowstream.cli.document docs/`; do not edit. -->"

COMMAND_LINE = """\
# Command line

{written}

Every command has `--help` with examples, and everything that prints a result has `--json`. Tables
are drawn on a terminal and plain in a pipe, with nothing cut off; `NO_COLOR` is honoured. Results
go to standard output; notes, warnings and errors to standard error: a mistake is one line there,
`error: ...`, with an [exit code](#exit-codes) of its own, and a traceback only with `--debug`.

What takes longer than a second says on standard error what it does and how far it is: on a terminal
in a line that is rewritten, else in a plain line every five seconds.

A command that Ctrl-C interrupts ends with exit code 130. Commands that go on until they are ended
have no other end than Ctrl-C, and the exit code is 0: `run` (it drains first), `broker`, `tail`,
`top` and `publish --loop`.

Options that have a variable can be set in the environment, in `.env` and in `pyproject.toml`: see
[configuration](configuration.md).

`flowstream --install-completion` makes the shell it is typed in complete commands, options and
their values; `--show-completion` prints what it would install. For another shell, say which:
`_FLOWSTREAM_COMPLETE=source_zsh flowstream` (or `source_bash`, `source_fish`) prints its script.
"""

CONFIGURATION = """\
# Configuration

{written}

A value is looked for in this order; the first place that has one decides.

1. a flag of the command line: `--http :9464`
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

The broker's address has a password: keep it in the environment or in `.env`, outside of the
repository.

```sh
FLOWSTREAM_URL=rabbitmq-stream+tls://orders:secret@rabbit.example.com:5551/shop
```

Several brokers of one cluster are written as `rabbitmq-stream://user:password@b1:5552,b2:5552/shop`,
and are tried in this order. In user and password every character but ASCII letters, digits and
`-._~!$&'()*+,;=:` is percent-encoded, such as `/` as `%2F` and `@` as `%40`; in Python:
`urllib.parse.quote(password, safe="")`. A URL that cannot be read is refused without showing it.

Without an address, commands connect to the embedded broker of the current folder where one runs (a
run with `--embedded`, or `flowstream broker`, says in `.flowstream/` where it listens), and else to
`localhost:5552`. `flowstream run` starts an embedded broker where nothing listens there, and always
with `embedded`; its first line says which broker it uses, and where the data is. `embedded` and
`url` in one place exclude each other; in two, the place that goes before the other decides.

`flowstream config` prints every value and where it came from; `flowstream config run
pipelines.orders --http :9464` the same with the flags of that command line. Secrets are masked
there and in every error. A key that does not exist is refused, with the place and the nearest key
that does:

```console
$ FLOWSTREAM_LOG_LEVL=info flowstream run pipelines.orders
error: FLOWSTREAM_LOG_LEVL: there is no such setting; did you mean FLOWSTREAM_LOG_LEVEL?
```

Variables such as `FLOWSTREAM_SERVICE_HOST`, which Kubernetes sets for a service of that name, are
left alone.
"""

MODULES = """\
## Modules and their pipelines

`run`, `check`, `graph` and `lag --pipeline` take modules: `flowstream run shop` runs every pipeline
that `shop.py` declares, `flowstream run shop:eu` only the one in the variable `eu`, or of the name
`eu`.

- Pipelines in a list, tuple or dict count too: `pipelines = [make("eu"), make("us")]` are `shop:eu`
  and `shop:us` by their names, and `shop:pipelines` both.
- A pipeline that is imported from the module that declares it is not run beside the module's own; a
  note names it. `shop:NAME` reaches it.
- A module that declares none runs those that it imports: a package's `__init__.py` may gather them.
- A pipeline that is named in two ways runs once.
"""

OPTIONS_OF_PIPELINES = """\
## Options of a pipeline

What a declaration says can be set otherwise where it runs, by the pipeline's name: in the table
`[tool.flowstream.pipelines.NAME]`, or as `FLOWSTREAM_PIPELINES__NAME__OPTION`, where NAME has `_`
for every character that a variable cannot have. `flowstream check` tells what was set, and whether
it fits the declaration.
"""

LOGS = """\
## Logs

flowstream logs with Python's `logging`, below the logger `flowstream`, and leaves the root logger
alone; a program that embeds a pipeline configures logging as it likes. `flowstream run` writes
records to standard error, from `log_level` on: as `text`, or with `log_format` `json` or `logfmt`
as one line per record, its own notes included, with `time` in UTC.

Records carry where they are about as fields: `pipeline`, `stage`, `stream` and `offset`, and
whatever your own code gives with `extra=`. What a handler logs gets them by itself (a batch handler
`pipeline` and `stage`); a program of your own has that with
`handler.addFilter(flowstream.pipeline.add_place)`. Of one message of one logger about one pipeline
and stream {limit} records are written in {interval:g} seconds; the next one tells in `left_out` how
many others there were.

Why messages fail is logged by reason: a warning for the first one, with its place and the fields
`phase` and `error`, its traceback at debug level, and then at most one line a minute with the
`count` of the others. What is dead-lettered or discarded is logged the same way. See [Why messages
fail](concepts.md#why-messages-fail).
"""


def command_line() -> str:
    """docs/cli.md."""
    parts = [COMMAND_LINE.format(written=WRITTEN)]
    for words, command in commands(get_command(app)):
        parts.append("\n".join(section(words, command)))
    codes = [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    parts.append("\n".join(["## Exit codes", "", "| code | meaning |", "| ---: | --- |", *codes]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Groups and commands below a group, by name."""
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
        yield "| argument or option | variable | default | what it is |"
        yield "| --- | --- | --- | --- |"
        yield from rows
    yield ""
    yield "```console"
    yield from (f"$ {text}" for text in examples(command))
    yield "```"


def filled(paragraph: str) -> str:
    """In lines that can be read and compared."""
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
    from flowstream.cli.output.logs import INTERVAL, LIMIT

    flags = {
        key: option.opts[0]
        for _, command in commands(get_command(app))
        for option in command.params
        if (key := setting_of(option)) is not None
    }
    settings = [
        f"| `{name}` | `{PREFIX}{name.upper()}` | {_code(flags.get(name))} | {_kind(field)} "
        f"| {_code(_default(field))} | {_cell(field.description or '')} |"
        for name, field in Settings.model_fields.items()
        if name != PIPELINES
    ]
    overrides = [
        f"| `{name}` | {_kind(field)} | {_cell(field.description or '')} |"
        for name, field in pipeline_overrides().model_fields.items()
    ]
    parts = [
        CONFIGURATION.format(written=WRITTEN),
        "\n".join(
            [
                "## Settings",
                "",
                "| key | variable | flag | type | default | what it is |",
                "| --- | --- | --- | --- | --- | --- |",
                *settings,
            ]
        ),
        MODULES,
        OPTIONS_OF_PIPELINES,
        "\n".join(["| option | type | what it is |", "| --- | --- | --- |", *overrides]),
        LOGS.format(limit=LIMIT, interval=INTERVAL),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _kind(field: Any) -> str:
    """The type in a word; of choices the choices."""
    kind = field.annotation
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    if arms and all(isinstance(arm, str) for arm in arms):
        return ", ".join(f"`{arm}`" for arm in arms)
    if arms and not isinstance(kind, type):
        kind = arms[0]
    if get_origin(kind) is not None:
        kind = get_args(kind)[0]
    names = {"SecretStr": "text, secret", "str": "text", "Path": "file", "bool": "true or false",
             "int": "whole number", "float": "number"}  # fmt: skip
    return names[kind.__name__]


def _default(field: Any) -> str | None:
    value = field.get_default(call_default_factory=True, validated_data={})
    return None if value is None else _text(value).strip("`")


def _metavar(option: Any) -> str:
    """What an option's value is called, from its own word, its choices or its type."""
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
