// One pipeline: its condition, figures, reasons, graph, partitions, batches, and controls.

import {controls} from "./control.js";
import {cursor} from "./chart.js";
import {advice, bytes, className, known, make, number, offset, percent, rate, span, text}
  from "./format.js";
import {graph} from "./graph.js";
import {letters} from "./letters.js";
import {table, tile} from "./parts.js";
import {became, reasons} from "./reasons.js";
import {settings} from "./settings.js";

const PARTITIONS = [
  {title: "stream", text: true, of: r => r.stream},
  {title: "owner", text: true, of: r => r.away ? "another process" : r.worker ? `worker ${r.worker}` : "this process"},
  {title: "lag", of: r => r.lagging ? `${number(r.lag)} · lagging` : number(r.lag),
    tone: r => r.lagging ? "bad" : ""},
  {title: "oldest unsettled", of: r => span(r.lag_seconds)},
  {title: "received", of: r => offset(r.received)},
  {title: "settled", of: r => offset(r.settled)},
  {title: "committed", of: r => offset(r.committed)},
  {title: "last commit", of: r => known(r.commit_age) ? `${span(r.commit_age)} ago` : "–"},
  {title: "credits", of: r => number(r.credits)},
];
const DROPS = [
  {title: "reason", text: true, wrap: true, of: r => r.reason || "not given"},
  {title: "by", text: true, of: r => r.intentional ? "a handler" : "the failure policy"},
  {title: "messages", of: r => number(r.messages)},
];
const BATCHES = [
  {title: "batcher", text: true, of: r => r.name},
  {title: "batches", of: r => number(r.batches)},
  {title: "mean size", of: r => number(r.mean_batch)},
  {title: "mean wait", of: r => span(r.mean_wait)},
  {title: "closed by", text: true, wrap: true, of: r => Object.entries(r.triggers)
    .map(([trigger, count]) => `${trigger} ${number(count)}`).join(", ")},
];

// The heading: name, condition, and since when. A click opens or closes the section.
function headline(name) {
  const pill = make("span"), since = make("span", {class: "soft"}), brief = make("span", {class: "brief"});
  const node = make("summary", {class: "title"}, make("h2", {}, name), pill, since, brief);
  return {node, update(pipeline) {
    const {condition} = pipeline;
    text(pill, condition.name);
    className(pill, `pill ${condition.level}`);
    const limit = pipeline.rate_limit?.messages;
    text(since, `${pipeline.phase} for ${span(pipeline.phase_seconds)}` +
      (known(limit) ? `, limited to ${rate(limit / pipeline.rate_limit.interval)}/s` : ""));
    text(brief, `${rate(pipeline.rate)}/s` + (known(pipeline.lag) ? ` · lag ${number(pipeline.lag)}` : "") +
      ` · ${number(pipeline.settled)} settled`);
  }};
}

// The reason of the condition, unless it is good, and what to do.
function verdict() {
  const said = make("b"), todo = make("span");
  const node = make("p", {}, said, " ", todo);
  return {node, update({level, name, why, ...more}) {
    node.hidden = level === "good" || name === "not ready" || !why;  // shown at the top of the page
    className(node, `verdict ${level}`);
    text(said, why ? `${why[0].toUpperCase()}${why.slice(1)}.` : "");
    if (todo.dataset.about === more.runbook) return;
    todo.dataset.about = more.runbook;
    todo.replaceChildren(advice(more));
  }};
}

function figures(pointer) {
  const tiles = {
    rate: tile("Settled", "messages/s", pointer, rate),
    lag: tile("Lag", "messages", pointer),
    latency: tile("Published to settled", "mean", pointer, span, ["mean", "p99"]),
    flight: tile("In flight", "messages", pointer),
    failed: tile("Failed attempts", "", pointer),
  };
  const node = make("div", {class: "tiles"}, ...Object.values(tiles).map(each => each.node));
  return {node, update(pipeline) {
    const {history, latency_quantiles: q} = pipeline;
    const full = pipeline.in_flight / pipeline.max_in_flight;
    tiles.rate.update(pipeline.rate, `${number(pipeline.settled)} in total`, history.at, [history.rate]);
    tiles.lag.update(pipeline.lag, waiting(pipeline), history.at, [history.lag],
      pipeline.streams.some(stream => stream.lagging) ? "bad" : "");
    tiles.latency.update(pipeline.latency, known(q.p50)
      ? `p50 ${span(q.p50)} · p95 ${span(q.p95)} · p99 ${span(q.p99)}`
      : "no messages settled recently", history.at, [history.latency, history.p99]);
    tiles.flight.update(pipeline.in_flight, `${percent(full)} of ${number(pipeline.max_in_flight)}, ` +
      bytes(pipeline.in_flight_bytes), history.at, [history.in_flight]);
    tiles.failed.update(pipeline.failed_attempts, became(pipeline.reasons).join(" · ") ||
      (pipeline.failed_attempts ? "" : `no ${pipeline.reasons.length ? "messages" : "attempts"} failed`), history.at, [history.failed],
      pipeline.condition.name === "failing" ? "bad" : "");
  }};
}

const KEEPING_UP = 5;  // seconds that messages may wait before the time to catch up is of interest

function waiting({lag, lag_seconds: age, catch_up: left, rate: settled}) {
  if (!lag) return known(lag) ? "no messages waiting" : "it reads no stream";
  const old = age > 0 ? `the oldest is ${span(age)} old` : "";
  if (age < KEEPING_UP) return old;
  const end = settled > 0 ? known(left) ? `caught up in ${span(left)}` : "not shrinking" : "";
  return [old, end].filter(Boolean).join(" · ");
}

export function pipelineSection(name, failed) {
  const head = headline(name), steering = controls(name, failed), judged = verdict();
  const numbers = figures(cursor()), flow = graph(), why = reasons(), buried = letters(name);
  const partitions = table("Streams and partitions", PARTITIONS, {key: r => r.stream,
    state: r => r.lagging ? "alarm" : r.away ? "away" : "", empty: "This process consumes no partition."});
  const batches = table("Batches", BATCHES, {key: r => r.name, empty: "No batches yet."});
  const drops = table("Dropped", DROPS, {key: r => `${r.intentional} ${r.reason}`,
    empty: "No messages were dropped."});
  const halves = make("div", {class: "halves"}, batches.node, drops.node);
  const body = make("div", {class: "body"}, judged.node, numbers.node, why.node,
    buried.node, flow.node, partitions.node, halves, settings(name).node);
  const opening = make("details", {open: ""}, head.node, body);
  const node = make("section", {class: "pipeline", "aria-label": `pipeline ${name}`}, opening);
  let chosen = false;
  head.node.addEventListener("click", () => { chosen = true; });

  return {node, update(pipeline, run) {
    // An idle pipeline beside others is closed, until the reader opens or closes it.
    if (!chosen) opening.open = pipeline.condition.level !== "quiet" || run.pipelines.length === 1;
    head.update(pipeline);
    if (!opening.open) return;
    const controllable = run.control && pipeline.phase !== "stopped";
    if (controllable && !steering.node.isConnected) body.prepend(steering.node);
    if (!controllable) steering.node.remove();
    steering.update(pipeline);
    judged.update(pipeline.condition);
    numbers.update(pipeline);
    why.update(pipeline.reasons, run.now, run.samples);
    buried.update(pipeline.dead_letters, run.control, pipeline.outcomes.dead_lettered ?? 0);
    flow.update(pipeline);
    partitions.update([...pipeline.streams.map(stream => ({...stream, away: !stream.active})),
      ...pipeline.elsewhere.map(stream => ({stream, away: true}))]);
    batches.update(pipeline.stages.filter(stage => stage.kind === "batcher"));
    drops.update(pipeline.dropped);
    drops.node.hidden = pipeline.dropped.length === 0;
    batches.node.hidden = !pipeline.stages.some(stage => stage.kind === "batcher");
    halves.hidden = batches.node.hidden && drops.node.hidden;
  }};
}
