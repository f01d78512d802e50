"""`flowstream graph`: the flow of messages through pipelines, as text, Mermaid or JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from flowstream.cli.configuration.overrides import override
from flowstream.cli.output.console import print_json, say
from flowstream.cli.pipelines.describe import failures, handler, source
from flowstream.cli.pipelines.load import load_pipelines
from flowstream.cli.pipelines.stream_topology import topology_of
from flowstream.cli.usage.graph import GraphFormat
from flowstream.pipeline import Guarantee, Pipeline, ends_of


@dataclass(frozen=True, slots=True)
class Node:
    """A stream, or a producer, processor or batcher of a pipeline, by `kind`.

    `guarantee` is that of an end of the pipeline.
    """

    id: str
    kind: str
    label: str
    detail: str = ""
    pipeline: str | None = None
    guarantee: Guarantee | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge between nodes. `label` is its condition, "" for none."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """The flow through pipelines. A stream is one node, even if several pipelines use it."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph(targets: list[str], *, format: GraphFormat, json: bool) -> None:
    pipelines = list(load_pipelines(targets).values())
    for pipeline in pipelines:
        override(pipeline)
        pipeline.check()
    if json:
        print_json(asdict(graph_of(pipelines)))
    elif format is GraphFormat.MERMAID:
        for line in mermaid(graph_of(pipelines)):
            say(line)
    else:
        for pipeline in pipelines:
            for line in tree(pipeline):
                say(line)


def graph_of(pipelines: list[Pipeline]) -> Graph:
    """The graph of pipelines, with nodes in the order of the flow."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for pipeline in pipelines:
        for part in _parts(pipeline):
            if isinstance(part, Node):
                nodes.setdefault(part.id, part)
            else:
                edges.append(part)
    return Graph(tuple(nodes.values()), tuple(edges))


def _parts(pipeline: Pipeline) -> Iterator[Node | Edge]:
    name, streams = pipeline.name, topology_of(pipeline)
    producer, processor = f"{name}.producer", f"{name}.processor"
    declared, batchers = pipeline.declaration.processor, pipeline.declaration.batchers
    kept = guarantees(pipeline)
    yield from (Node(f"stream:{stream}", "stream", stream) for stream in streams.reads)
    yield Node(producer, "producer", type(pipeline.producer).__name__, source(pipeline), name)
    if declared is not None:
        yield Node(processor, "processor", declared.signature.name, handler(declared), name,
                   kept.get(declared.options.name))  # fmt: skip
    yield from (Edge(f"stream:{stream}", producer) for stream in streams.reads)
    if declared is not None:
        yield Edge(producer, processor)
    for batcher, each in batchers.items():
        yield Node(f"{name}.{batcher}", "batcher", batcher, handler(each), name, kept[batcher])
        yield Edge(producer if declared is None else processor, f"{name}.{batcher}")
        stream = getattr(each.sink, "stream", None)
        if stream is not None:
            yield Node(f"stream:{stream}", "stream", stream)
            yield Edge(f"{name}.{batcher}", f"stream:{stream}")
    if streams.dead_letters is not None:
        yield Node(f"stream:{streams.dead_letters}", "stream", streams.dead_letters)
        first = [] if declared is None else [processor]
        for stage in (*first, *(f"{name}.{batcher}" for batcher in batchers)):
            yield Edge(stage, f"stream:{streams.dead_letters}", "failed")


# -- text


def tree(pipeline: Pipeline) -> Iterator[str]:
    """The pipeline as an indented tree, with one line for each stage."""
    yield pipeline.name
    yield f"└─ {source(pipeline)}"
    processor, batchers = pipeline.declaration.processor, pipeline.declaration.batchers
    indent = "   "
    kept = guarantees(pipeline)
    if processor is not None:
        mark = _mark(kept.get(processor.options.name))
        yield f"{indent}└─ processor: {handler(processor)}{mark}"
        indent = "      "
    ends = [f"{name}: {handler(each)}{_mark(kept[name])}" for name, each in batchers.items()]
    ends.append(f"failed: {failures(pipeline)}")
    for end in ends[:-1]:
        yield f"{indent}├─ {end}"
    yield f"{indent}└─ {ends[-1]}"


def guarantees(pipeline: Pipeline) -> dict[str, Guarantee]:
    """The guarantees of the stages at which messages end, by name."""
    ends = ends_of(pipeline.declaration)
    return {end.name: end.guarantee for end in ends if end.kind in ("handler", "sink")}


def _mark(guarantee: Guarantee | None) -> str:
    """A higher or lower guarantee than the usual one."""
    if guarantee is None or guarantee.level == "at least once":
        return ""
    return f" [{guarantee.level}]"


# -- Mermaid


def mermaid(graph: Graph) -> Iterator[str]:
    """A flow chart. Streams are cylinders, and stages are in a box of their pipeline."""
    ids = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    yield "flowchart LR"
    for node in graph.nodes:
        if node.pipeline is None:
            yield f'  {ids[node.id]}[("{_escaped(node.label)}")]'
    for number, pipeline in enumerate(dict.fromkeys(n.pipeline for n in graph.nodes if n.pipeline)):
        yield f'  subgraph p{number}["{_escaped(pipeline)}"]'
        for node in graph.nodes:
            if node.pipeline == pipeline:
                label = f"{node.kind}: {node.label}{_mark(node.guarantee)}"
                yield f'    {ids[node.id]}["{_escaped(label)}"]'
        yield "  end"
    for edge in graph.edges:
        arrow = f"-. {edge.label} .->" if edge.label else "-->"
        yield f"  {ids[edge.source]} {arrow} {ids[edge.target]}"


def _escaped(text: str) -> str:
    return re.sub(r'["<>&#]', lambda match: f"#{ord(match[0])};", text)
