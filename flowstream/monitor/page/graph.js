// The stages as a graph: producer, processor, batchers, settled. Coloured by how busy each is.

import {className, make, number, percent, plural, rate, span, text} from "./format.js";

const STATES = ["busy", "backpressured", "rate_limited", "paused"];
const NAMES = {busy: "busy", backpressured: "backpressured: the window is full", rate_limited: "rate-limited",
  paused: "paused", idle: "idle"};
const WRITES = {handler: true, sink: true};  // the kinds of ends that are stages
const WARM = 0.6, HOT = 0.85;
const EDGES = {calm: `busy up to ${percent(WARM)}`, warm: `up to ${percent(HOT)}`,
  hot: "above: this stage is the bottleneck", failing: "framed: failing (1 in 10 attempts in the last minute)"};

function box(kind) {
  const name = make("b"), what = make("span", {class: "kind"}, kind), badge = make("span");
  const parts = Object.fromEntries(STATES.map(state => [state, make("i", {class: state})]));
  const bar = make("div", {class: "bar", role: "img"}, ...Object.values(parts));
  const lines = make("div");
  const mark = make("span");
  const node = make("div", {class: "stage"},
    make("div", {class: "head"}, name, what, badge), bar, lines, mark);
  return {node, update({title, subtitle = "", states = null, failing = false, tone = "", told, end}) {
    text(mark, end?.guarantee.level ?? "");
    className(mark, end ? `guarantee ${end.guarantee.level.replaceAll(" ", "-")}` : "");
    mark.title = [end?.guarantee.reason, end?.guarantee.remedy].filter(Boolean).join(" – ");
    text(name, title);
    text(what, subtitle);
    text(badge, failing ? "failing" : "");
    className(badge, failing ? "pill bad" : "pill");
    const busy = states?.busy ?? 0;
    const heat = !states ? "" : busy > HOT ? "hot" : busy > WARM ? "warm" : "calm";
    className(node, `stage ${tone || heat} ${failing ? "failing" : ""}`);
    bar.hidden = !states;
    for (const state of STATES) parts[state].style.width = `${(states?.[state] ?? 0) * 100}%`;
    const shown = Object.entries(states ?? {}).filter(([, share]) => share >= 0.005)
      .map(([state, share]) => `${NAMES[state]} ${percent(share)}`);
    bar.setAttribute("aria-label", shown.join(", ") || "not measured yet");
    bar.title = shown.join(", ");
    while (lines.children.length > told.length) lines.lastChild.remove();
    told.forEach((line, index) => {
      if (!lines.children[index]) lines.append(make("div"));
      const [content, mood] = Array.isArray(line) ? line : [line, "soft"];
      text(lines.children[index], content);
      className(lines.children[index], mood);
    });
  }};
}

function ofSource(pipeline) {
  const {source} = pipeline, told = [`${rate(pipeline.received_rate)}/s received`];
  const held = source.states.backpressured ?? 0;
  if (held > 0.05) told.push(`backpressured ${percent(held)}` +
    (pipeline.in_flight > pipeline.max_in_flight / 2 ? ": the window is full" : ""));
  if (source.states.rate_limited > 0.05) told.push(`rate-limited ${percent(source.states.rate_limited)}`);
  told.push(plural(pipeline.received, "message"));
  return {title: source.name, states: source.states, failing: source.failing, told};
}

function ofStage(stage, end) {
  const told = [`${rate(stage.rate)}/s, ${percent(stage.busy)} busy`];
  if (stage.kind === "batcher" && stage.batches)
    told.push(`batches of ${number(stage.mean_batch)}, filled in ${span(stage.mean_wait)}`);
  told.push(`${number(stage.waiting)} waiting`);
  const {hot_key: hot} = stage, limit = 1 / stage.concurrency;
  if (hot && hot.share > limit / 2) told.push([`one key has ${percent(hot.share)} of the messages` +
    (hot.sample ? `, such as ${hot.sample}` : ""), hot.share > limit && stage.concurrency > 1 ? "warn" : "soft"]);
  if (stage.parked) told.push([`${number(stage.parked)} waiting for a retry`, "warn"]);
  if (stage.longest > 5) told.push([`one call has been running for ${span(stage.longest)}`,
    stage.longest > 30 ? "bad" : "warn"]);
  if (stage.hung) told.push([`${plural(stage.hung, "thread")} hung`, "bad"]);
  if (stage.failed) told.push([`${plural(stage.failed, "attempt")} failed, ${number(stage.retried)} retried` +
    (stage.failing_share ? ` (recently ${percent(stage.failing_share)})` : ""), stage.failing ? "bad" : "soft"]);
  const workers = plural(stage.concurrency, "worker");
  return {title: stage.name, subtitle: stage.name === stage.kind ? workers : `${stage.kind}, ${workers}`,
    states: stage.states, failing: stage.failing, told, end};
}

function ofEnd(pipeline) {
  const told = Object.entries(pipeline.outcomes).map(([name, count]) =>
    [`${number(count)} ${name.replace("_", "-")}`, name === "ok" ? "good" :
      name === "dropped" ? "soft" : "bad"]);
  if (pipeline.abandoned) told.push([`${number(pipeline.abandoned)} abandoned, for the next run`, "warn"]);
  return {title: "settled", subtitle: "", told: told.length ? told : ["none yet"]};
}

export function graph() {
  const edges = make("svg", {"aria-hidden": "true"});
  const node = make("div", {class: "graph"}, edges);
  const key = (title, names) => make("p", {class: "legend"}, make("span", {}, title),
    ...Object.entries(names).map(([name, told]) => make("span", {}, make("i", {class: name}), told)));
  const card = make("div", {class: "card"}, make("h3", {}, "Stages"), node,
    key("Bars, the time of the workers:", NAMES), key("Edges of the boxes:", EDGES));
  const boxes = new Map();
  let columns = [];
  let moving = new Set();

  function boxOf(name, kind) {
    if (!boxes.has(name)) boxes.set(name, box(kind));
    return boxes.get(name);
  }

  function build(stages) {
    const groups = [["producer"], ...["processor", "batcher"].map(kind =>
      stages.filter(stage => stage.kind === kind).map(stage => `stage ${stage.name}`)), ["settled"]];
    columns = groups.filter(names => names.length);
    node.replaceChildren(edges, ...columns.map(names =>
      make("div", {class: "column"}, ...names.map(name => boxOf(name, "").node))));
  }

  function draw() {
    const frame = node.getBoundingClientRect();
    edges.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    const paths = [];
    for (let index = 1; index < columns.length; index += 1)
      for (const from of columns[index - 1])
        for (const to of columns[index])
          paths.push(path(boxes.get(from).node, boxes.get(to).node, frame, moving.has(to) || moving.has(from)));
    edges.replaceChildren(...paths);
  }

  function path(from, to, frame, isMoving) {
    const a = from.getBoundingClientRect(), b = to.getBoundingClientRect();
    let line;
    if (b.left >= a.right) {
      const [x1, y1] = [a.right - frame.left, a.top + a.height / 2 - frame.top];
      const [x2, y2] = [b.left - frame.left, b.top + b.height / 2 - frame.top];
      const middle = (x1 + x2) / 2;
      line = `M${x1},${y1} C${middle},${y1} ${middle},${y2} ${x2},${y2}`;
    } else {
      const [x1, y1] = [a.left + a.width / 2 - frame.left, a.bottom - frame.top];
      const [x2, y2] = [b.left + b.width / 2 - frame.left, b.top - frame.top];
      const middle = (y1 + y2) / 2;
      line = `M${x1},${y1} C${x1},${middle} ${x2},${middle} ${x2},${y2}`;
    }
    return make("path", {d: line, class: isMoving ? "moving" : ""});
  }

  new ResizeObserver(draw).observe(node);
  let shape = "";
  return {node: card, update(pipeline) {
    const now = pipeline.stages.map(stage => `${stage.kind} ${stage.name}`).join();
    if (now !== shape) { build(pipeline.stages); shape = now; }
    boxes.get("producer").update(ofSource(pipeline));
    for (const stage of pipeline.stages) boxes.get(`stage ${stage.name}`)
      .update(ofStage(stage, pipeline.ends.find(end => end.name === stage.name && end.kind in WRITES)));
    boxes.get("settled").update(ofEnd(pipeline));
    const flowing = new Set(pipeline.stages.filter(stage => stage.rate > 0)
      .map(stage => `stage ${stage.name}`));
    const changed = [...flowing].join() !== [...moving].join();
    moving = flowing;
    if (changed || !edges.children.length) draw();
  }};
}
