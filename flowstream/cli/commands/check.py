"""`flowstream check`: would these pipelines run? Without a broker, or with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowstream.cli.diagnosis.findings import Finding, bad, ok, tell, warn
from flowstream.cli.parser.options import (
    DEFAULT_URL,
    Json,
    Url,
    examples,
    run_async,
)
from flowstream.errors import FlowstreamError

if TYPE_CHECKING:
    from flowstream.pipeline import Pipeline


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command(
        epilog=examples(
            "flowstream check pipelines.orders",
            "flowstream check pipelines.orders pipelines.feed --connect",
            "flowstream check pipelines.orders --json",
        )
    )(check)


def check(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MODULE[:NAME]", help="Modules with pipelines."),
    ],
    *,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Ask the broker too: streams, permissions, offsets."),
    ] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Check that pipelines would run: declaration, options, handlers and payload types.

    Nothing is consumed, published or stored. With --connect the streams, the user's permissions,
    the dead-letter stream and the stored offsets are looked at too. Exit code 24: something will
    not work.
    """
    from flowstream.cli.configuration.overrides import unused
    from flowstream.cli.connection.connect import connection

    findings: list[Finding] = []
    pipelines = list(_load(targets, findings))
    findings += _chains(targets, pipelines)
    names = [pipeline.name for pipeline in pipelines]
    findings += [warn("settings", "pipelines", said) for said in unused(names) if names]
    if connect:
        findings += run_async(_ask, connection(url), pipelines)
    tell(findings, json=json)


def _load(targets: list[str], findings: list[Finding]) -> Iterator[Pipeline]:
    """The pipelines that load; why others do not is a finding."""
    from flowstream.cli.pipelines.load import load_target

    seen: dict[str, tuple[str, Pipeline]] = {}
    for target in targets:
        try:
            found = load_target(target)
        except FlowstreamError as error:
            findings.append(bad(target, "module", error))
            continue
        for name, pipeline in found.items():
            other, same = seen.setdefault(pipeline.name, (name, pipeline))
            if same is not pipeline:
                text = f"{other} is named {pipeline.name!r} too, and offsets are stored by name"
                findings.append(bad(name, "name", text, "give one of them another name"))
            elif other == name:
                findings += declaration(pipeline, name)
                yield pipeline


async def _ask(broker: Any, pipelines: list[Pipeline]) -> list[Finding]:
    from flowstream.cli.diagnosis.pipelines import ask

    return await ask(broker, pipelines)


# -- without a broker


def declaration(pipeline: Pipeline, target: str) -> Iterator[Finding]:
    """What the declaration alone shows."""
    from flowstream.cli.configuration.overrides import override

    name = pipeline.name
    yield ok(name, "module", target)
    try:
        overridden = override(pipeline)
        pipeline.check()
    except FlowstreamError as error:
        yield bad(name, "declaration", error)
        return
    for option, origin in overridden.items():
        yield ok(name, option, f"configured by {origin}")
    yield from _stages(pipeline)
    yield from _loops(pipeline)
    yield from _advice(pipeline)


def _stages(pipeline: Pipeline) -> Iterator[Finding]:
    from flowstream.cli.pipelines.describe import handler, source

    yield ok(pipeline.name, "producer", source(pipeline))
    for kind, each in pipeline.declaration.stages:
        stage = kind if kind == "processor" else each.options.name
        if each.signature.wanted:
            yield bad(
                pipeline.name,
                stage,
                f"{handler(each)}: its first parameter has no annotation, and nothing says what a "
                "message is decoded to: handlers get bytes as they are",
                f"write {each.signature.wanted}",
            )
        else:
            yield ok(pipeline.name, stage, handler(each))
        if each.options.concurrency > 1 and not (
            each.options.partition_by or pipeline.options.partition_by
        ):
            yield warn(
                pipeline.name,
                stage,
                f"concurrency={each.options.concurrency} without partition_by: messages are not "
                "handled in the stream's order",
                "give partition_by= where order matters",
            )


def _loops(pipeline: Pipeline) -> Iterator[Finding]:
    from flowstream.cli.pipelines.stream_topology import wiring

    streams = wiring(pipeline)
    for stream in {*streams.sinks, streams.dead_letters} & {*streams.reads}:
        yield bad(
            pipeline.name,
            "streams",
            f"it reads {stream} and publishes to it: an endless loop",
            "publish to another stream",
        )


def _chains(targets: list[str], pipelines: list[Pipeline]) -> Iterator[Finding]:
    """Ways through several pipelines, of these modules, that lead back to where they began."""
    from flowstream.cli.pipelines.load import neighbours
    from flowstream.cli.pipelines.stream_topology import chains, endless, told, wiring

    checked = {pipeline.name for pipeline in pipelines}
    for chain in chains(wiring(each) for each in neighbours(targets)) if pipelines else ():
        name = next((edge.pipeline for edge in chain if edge.pipeline in checked), None)
        if name is not None:
            finding = bad if endless(chain) else warn
            yield finding(name, "streams", told(chain), "publish to another stream")


def _advice(pipeline: Pipeline) -> Iterator[Finding]:
    for each in pipeline.advice():
        yield warn(pipeline.name, each.subject, each.text, each.remedy)
