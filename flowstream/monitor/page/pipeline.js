// One pipeline: figures, graph, partitions, failures, batches, and controls where they are allowed.

import {bytes, className, known, make, number, offset, percent, rate, span, text}
  from "./format.js";
import {graph} from "./graph.js";
import {table, tile} from "./parts.js";

const PARTITIONS = [
  {title: "stream", text: true, of: r => r.stream},
  {title: "owner", text: true, of: r => r.away ? "elsewhere" : "this process"},
  {title: "lag", of: r => r.lagging ? `${number(r.lag)} · lagging` : number(r.lag),
    tone: r => r.lagging ? "bad" : ""},
  {title: "oldest unsettled", of: r => span(r.lag_seconds)},
  {title: "received", of: r => offset(r.received)},
  {title: "settled", of: r => offset(r.settled)},
  {title: "committed", of: r => offset(r.committed)},
  {title: "last commit", of: r => known(r.commit_age) ? `${span(r.commit_age)} ago` : "–"},
  {title: "credits", of: r => number(r.credits)},
];
const FAILURES = [
  {title: "last", text: true, of: r => new Date(r.at * 1000).toLocaleTimeString("en-GB")},
  {title: "why", text: true, wrap: true, of: why},
  {title: "stage", text: true, of: r => r.stage},
  {title: "phase", text: true, of: r => r.phase},
  {title: "messages", of: r => number(r.messages)},
];
const DROPS = [
  {title: "reason", text: true, wrap: true, of: r => r.reason || "none given"},
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

function why(failure) {
  const {error, reason} = failure;
  return error === "fail" || reason.startsWith(error) ? reason : `${error}: ${reason}`;
}

const tone = phase => phase === "running" ? "good" : phase === "stopped" ? "bad" : "warn";

function controls(name, failed) {
  let paused = false;
  const pause = make("button", {type: "button"}, "Pause");
  const input = make("input", {type: "number", min: "0", step: "any", inputmode: "decimal",
    placeholder: "no limit", id: `limit-${name}`});
  const label = make("label", {for: `limit-${name}`}, "messages/s");
  const limit = make("button", {type: "submit"}, "Limit");
  const form = make("form", {class: "controls", "aria-label": `Control ${name}`},
    pause, label, input, limit);

  async function send(body) {
    try {
      const answer = await fetch("api/control", {method: "POST",
        headers: {"content-type": "application/json"},
        body: JSON.stringify({pipeline: name, ...body})});
      if (!answer.ok) throw new Error((await answer.text()).trim());
      failed("");
    } catch (error) {
      failed(`${name}: ${error.message}`);
    }
  }

  pause.addEventListener("click", () => send({action: paused ? "resume" : "pause"}));
  form.addEventListener("submit", event => {
    event.preventDefault();
    send({action: "rate_limit", messages: input.value === "" ? null : Number(input.value)});
  });
  return {node: form, update(pipeline) {
    paused = pipeline.phase === "paused";
    text(pause, paused ? "Resume" : "Pause");
    const limited = pipeline.rate_limit?.messages;
    if (document.activeElement !== input && input.dataset.shown !== String(limited)) {
      input.value = known(limited) ? limited / pipeline.rate_limit.interval : "";
      input.dataset.shown = String(limited);
    }
  }};
}

export function pipelineSection(name, failed) {
  const pill = make("span"), since = make("span", {class: "soft"});
  const title = make("div", {class: "title"}, make("h2", {}, name), pill, since);
  const steering = controls(name, failed);
  const tiles = {
    rate: tile("Settled", "messages/s", rate),
    lag: tile("Lag", "messages"),
    latency: tile("Published to settled", "mean", span),
    flight: tile("In flight", "messages"),
    failed: tile("Failed", "messages"),
  };
  const flow = graph();
  const partitions = table("Streams and partitions", PARTITIONS, {key: r => r.stream,
    state: r => r.lagging ? "alarm" : r.away ? "away" : "", empty: "No partition is consumed here."});
  const failures = table("Failures", FAILURES, {key: r => `${r.stage} ${r.phase} ${r.error}`,
    empty: "Nothing has failed."});
  const batches = table("Batches", BATCHES, {key: r => r.name, empty: "No batch yet."});
  const drops = table("Dropped", DROPS, {key: r => `${r.intentional} ${r.reason}`,
    empty: "Nothing was dropped."});
  const halves = make("div", {class: "halves"}, batches.node, drops.node);
  const node = make("section", {class: "pipeline", "aria-label": `pipeline ${name}`}, title,
    make("div", {class: "tiles"}, ...Object.values(tiles).map(each => each.node)),
    flow.node, partitions.node, failures.node, halves);

  function figures(pipeline) {
    const {history} = pipeline, full = pipeline.in_flight / pipeline.max_in_flight;
    const lagging = pipeline.streams.some(stream => stream.lagging);
    tiles.rate.update(pipeline.rate, `${number(pipeline.settled)} in all`, history.rate);
    tiles.lag.update(pipeline.lag, pipeline.lag_seconds > 0
      ? `the oldest is ${span(pipeline.lag_seconds)} old` : "nothing waits", history.lag,
      lagging ? "bad" : "");
    tiles.latency.update(pipeline.latency, "over the last 5 s", history.latency);
    tiles.flight.update(pipeline.in_flight, `${percent(full)} of ${number(pipeline.max_in_flight)}, ` +
      bytes(pipeline.in_flight_bytes), history.in_flight);
    tiles.failed.update(pipeline.failed, `${number(pipeline.retried)} tried again`, history.failed,
      pipeline.failures.length && history.failed.slice(-30).some(value => value > 0) ? "bad" : "");
  }

  return {node, update(pipeline, controllable) {
    text(pill, pipeline.phase);
    className(pill, `pill ${tone(pipeline.phase)}`);
    const limit = pipeline.rate_limit?.messages;
    text(since, `for ${span(pipeline.phase_seconds)}` +
      (known(limit) ? `, limited to ${rate(limit / pipeline.rate_limit.interval)}/s` : ""));
    if (controllable && !steering.node.isConnected) title.append(steering.node);
    if (!controllable) steering.node.remove();
    steering.update(pipeline);
    figures(pipeline);
    flow.update(pipeline);
    partitions.update([...pipeline.streams,
      ...pipeline.elsewhere.map(stream => ({stream, away: true}))]);
    failures.update(pipeline.failures.slice(0, 12));
    batches.update(pipeline.stages.filter(stage => stage.kind === "batcher"));
    drops.update(pipeline.dropped);
    drops.node.hidden = pipeline.dropped.length === 0;
    batches.node.hidden = !pipeline.stages.some(stage => stage.kind === "batcher");
  }};
}
