// Asks for the run's figures once a second and shows them; goes on by itself after a restart.

import {advice, bytes, className, make, percent, plural, rate, span, text} from "./format.js";
import {pipelineSection} from "./pipeline.js";
import {runSection} from "./run.js";

const EVERY = 1000, HIDDEN = 5000, TIMEOUT = 5000;
const sections = new Map();
const main = document.getElementById("pipelines");
const status = document.getElementById("status");
const ready = document.getElementById("ready");
const about = runSection();
let version = "";
let refused = "";
let answeredAt = null;
let timer = null;

// `problems` are {said, advice, runbook}, the last two where there are some.
function tell(problems) {
  const now = JSON.stringify(problems);
  if (status.dataset.told === now) return;
  status.dataset.told = now;
  status.replaceChildren(...(problems.length ? [make("ul", {}, ...problems.map(each =>
    make("li", {}, make("span", {}, each.said), " ", advice(each))))] : []));
  className(status, problems.length ? "shown" : "");
}

function header(run) {
  const connections = Object.values(run.connections).reduce((sum, count) => sum + count, 0);
  const {cpu, memory} = run.process;
  text(document.getElementById("run"), `${run.version} · up ${span(run.uptime)} · ` +
    `${plural(connections, "connection")}` + (run.lost ? ` · ${run.lost} lost` : "") +
    ` · CPU ${percent(cpu)} · ${bytes(memory)}`);
  const worst = run.pipelines[0]?.condition;
  const bad = run.not_ready.length > 0 || run.losses.length > 0 || worst?.level === "bad";
  text(ready, run.not_ready.length ? "not ready" : run.losses.length ? "reconnecting"
    : bad ? worst.name : "ready");
  className(ready, `pill ${bad ? "bad" : "good"}`);
  document.title = (bad ? "⚠ " : "") +
    (run.pipelines.map(each => `${each.name} ${rate(each.rate)}/s`).join(", ") || "flowstream");
}

function show(run) {
  if (version && run.version !== version) location.reload();
  version = run.version;
  header(run);
  const halted = run.pipelines.filter(each => each.condition.name === "halted").map(each => each.name);
  const failing = run.not_ready.filter(each =>  // what has halted says so itself, with the reason
    each.check !== "phase" || !halted.includes(each.pipeline));
  const losses = run.losses.map(each => ({...each, said: `${each.text}. It is tried again.`}));
  const problems = [...Map.groupBy(failing, each => `${each.check} ${each.detail}`).values()]
    .map(same => ({...same[0], pipeline: same.map(each => each.pipeline).filter(Boolean).join(", ")}))
    .map(each => ({...each, said: `${each.pipeline ? `${each.pipeline}: ` : ""}${each.detail}.`}));
  if (!problems.some(each => each.check === "broker")) problems.unshift(...losses);
  tell(refused ? [...problems, {said: refused}] : problems);
  for (const pipeline of run.pipelines) {
    if (!sections.has(pipeline.name))
      sections.set(pipeline.name, pipelineSection(pipeline.name, message => { refused = message; }));
    sections.get(pipeline.name).update(pipeline, run);
  }
  const names = run.pipelines.map(each => each.name);
  for (const [name, section] of sections)
    if (!names.includes(name)) { section.node.remove(); sections.delete(name); }
  about.update(run);
  order([...names.map(name => sections.get(name).node), about.node]);
}

// What matters first is at the top; what has the keyboard keeps it when it moves.
function order(nodes) {
  if (nodes.every((node, index) => main.children[index] === node)) return;
  const focused = document.activeElement;
  main.replaceChildren(...nodes);
  if (focused !== document.activeElement && main.contains(focused)) focused.focus({preventScroll: true});
}

async function refresh() {
  timer = null;
  try {
    const answer = await fetch("api/snapshot", {signal: AbortSignal.timeout(TIMEOUT)});
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    const run = await answer.json();
    document.body.classList.remove("gone");
    answeredAt = new Date();
    show(run);
  } catch {
    document.body.classList.add("gone");
    text(ready, "no answer");
    className(ready, "pill bad");
    const since = answeredAt ? `; these figures are from ${answeredAt.toLocaleTimeString("en-GB")}` : "";
    tell([{said: `The run does not answer; trying again${since}.`}]);
  }
  timer = setTimeout(refresh, document.hidden ? HIDDEN : EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || timer === null) return;
  clearTimeout(timer);
  refresh();
});
refresh();
