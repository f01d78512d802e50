"""`flowstream check`: whether pipelines would run, without a broker or with one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowstream.cli.configuration.overrides import override, unused
from flowstream.cli.connection.connect import connection
from flowstream.cli.diagnosis.findings import Finding, bad, info, ok, print_findings, warn
from flowstream.cli.diagnosis.pipelines import ask
from flowstream.cli.event_loop import run_async
from flowstream.cli.pipelines.describe import handler, source
from flowstream.cli.pipelines.load import load_target, pipelines_of_modules
from flowstream.cli.pipelines.sink_records import clashes
from flowstream.cli.pipelines.stream_topology import chain_text, chains, endless, topology_of
from flowstream.errors import FlowstreamError
from flowstream.pipeline import Pipeline, ends_of


def check(targets: list[str], *, connect: bool, url: str, json: bool) -> None:
    findings: list[Finding] = []
    pipelines = list(_load(targets, findings))
    findings += _chains(targets, pipelines)
    remedy = "give one of them another name or reference="
    findings += [bad(name, "record", text, remedy) for name, text in clashes(pipelines)]
    names = [pipeline.name for pipeline in pipelines]
    findings += [warn("settings", "pipelines", text) for text in unused(names) if names]
    if connect:
        findings += run_async(_ask, connection(url), pipelines)
    print_findings(findings, json=json)


def _load(targets: list[str], findings: list[Finding]) -> Iterator[Pipeline]:
    """The pipelines that load. For others a finding says why they do not."""
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
                text = f"{other} is also named {pipeline.name!r}, and offsets are stored by name"
                findings.append(bad(name, "name", text, "rename one of them"))
            elif other == name:
                findings += declaration(pipeline, name)
                yield pipeline


async def _ask(broker: Any, pipelines: list[Pipeline]) -> list[Finding]:
    return await ask(broker, pipelines)


# -- without a broker


def declaration(pipeline: Pipeline, target: str) -> Iterator[Finding]:
    """The findings on a declaration, without a broker."""
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
    yield from _guarantees(pipeline)
    yield from _loops(pipeline)
    yield from _advice(pipeline)


def _stages(pipeline: Pipeline) -> Iterator[Finding]:
    yield ok(pipeline.name, "producer", source(pipeline))
    for kind, each in pipeline.declaration.stages:
        stage = kind if kind == "processor" else each.options.name
        if each.signature.wanted:
            yield bad(
                pipeline.name,
                stage,
                f"{handler(each)}: the first parameter has no annotation, so messages are not "
                "decoded and the handler gets bytes",
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
                "set partition_by= if the order matters",
            )


def _guarantees(pipeline: Pipeline) -> Iterator[Finding]:
    """How often what each end does takes effect, and why not more."""
    for end in ends_of(pipeline.declaration):
        text, remedy = str(end.guarantee), end.guarantee.remedy
        yield info(pipeline.name, f"{end.name} guarantee", text, remedy)


def _loops(pipeline: Pipeline) -> Iterator[Finding]:
    streams = topology_of(pipeline)
    for stream in {*streams.sinks, streams.dead_letters} & {*streams.reads}:
        yield bad(
            pipeline.name,
            "streams",
            f"it reads {stream} and publishes to it: an endless loop",
            "publish to another stream",
        )


def _chains(targets: list[str], pipelines: list[Pipeline]) -> Iterator[Finding]:
    """Findings on circles through several pipelines of these modules."""
    checked = {pipeline.name for pipeline in pipelines}
    for chain in (
        chains(topology_of(each) for each in pipelines_of_modules(targets)) if pipelines else ()
    ):
        name = next((edge.pipeline for edge in chain if edge.pipeline in checked), None)
        if name is not None:
            finding = bad if endless(chain) else warn
            yield finding(name, "streams", chain_text(chain), "publish to another stream")


def _advice(pipeline: Pipeline) -> Iterator[Finding]:
    for each in pipeline.advice():
        yield warn(pipeline.name, each.subject, each.text, each.remedy)
