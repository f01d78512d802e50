// Fetches the snapshot of the run once a second and shows it, also after the run has restarted.

import {advice, bytes, className, make, percent, plural, rate, span, text} from "./format.js";
import {keyed} from "./parts.js";
import {pipelineSection} from "./pipeline.js";
import {runSection} from "./run.js";
import {workersSection} from "./workers.js";

const EVERY = 1000, HIDDEN = 5000, TIMEOUT = 5000;
const sections = new Map();
const main = document.getElementById("pipelines");
const status = document.getElementById("status");
const news = document.getElementById("news");
const ready = document.getElementById("ready");
const about = runSection();
const workers = workersSection(number => {
  chosen = number;
  clearTimeout(timer);
  refresh();
});
let version = "";
let refused = "";
let answeredAt = null;
let timer = null;
let chosen = "";  // the number of the worker that is shown
let turn = 0;  // a choice begins a new turn: an answer to an earlier request is not shown

function line({advice: words, runbook}) {
  const said = make("span");
  const node = make("li", {}, said, " ", advice({advice: words, runbook}));
  return {node, update(problem) { text(said, problem.said); }};
}
const list = make("ul");
status.append(list);
const lines = keyed(list, line, problem => `${problem.check} ${problem.pipeline}`);

// Each problem has the text `said`, and perhaps advice. All changes are shown, but only a new problem
// is announced by screen readers: some texts count seconds.
function tell(problems) {
  lines.update(problems);
  className(status, problems.length ? "shown" : "");
  const kinds = problems.map(each => `${each.check} ${each.pipeline}`).join("\n");
  if (news.dataset.kinds === kinds) return;
  news.dataset.kinds = kinds;
  text(news, problems.map(each => each.said).join(" "));
}

// Failing checks, the same one of several pipelines once. A halted pipeline has a verdict of its own.
function notReady(run) {
  const halted = run.pipelines.filter(each => each.condition.name === "halted").map(each => each.name);
  const same = new Map();
  for (const each of run.not_ready) {
    if (each.check === "phase" && halted.includes(each.pipeline)) continue;
    const known = same.get(`${each.check} ${each.detail}`);
    if (known) known.pipeline += `, ${each.pipeline}`;
    else same.set(`${each.check} ${each.detail}`, {...each});
  }
  return [...same.values()].map(each =>
    ({...each, said: `${each.pipeline ? `${each.pipeline}: ` : ""}${each.detail}.`}));
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
  const problems = notReady(run);
  if (!problems.some(each => each.check === "broker"))
    problems.unshift(...run.losses.map(each =>
      ({...each, check: "lost", pipeline: each.environment, said: `${each.text}. Reconnecting.`})));
  tell(refused ? [...problems, {check: "refused", pipeline: "", said: refused}] : problems);
  for (const pipeline of run.pipelines) {
    if (!sections.has(pipeline.name))
      sections.set(pipeline.name, pipelineSection(pipeline.name, message => { refused = message; }));
    sections.get(pipeline.name).update(pipeline, run);
  }
  const names = run.pipelines.map(each => each.name);
  for (const [name, section] of sections)
    if (!names.includes(name)) { section.node.remove(); sections.delete(name); }
  about.update(run);
  if (run.workers) workers.update(run);
  order([...(run.workers ? [workers.node] : []), ...names.map(name => sections.get(name).node),
    about.node]);
}

// Sorts the sections as the snapshot does. A focused element keeps the focus when it moves.
function order(nodes) {
  if (nodes.every((node, index) => main.children[index] === node)) return;
  const focused = document.activeElement;
  main.replaceChildren(...nodes);
  if (focused !== document.activeElement && main.contains(focused)) focused.focus({preventScroll: true});
}

function gone() {
  document.body.classList.add("gone");
  text(ready, "no answer");
  className(ready, "pill bad");
  const since = answeredAt ? `; these figures are from ${answeredAt.toLocaleTimeString("en-GB")}` : "";
  tell([{check: "gone", pipeline: "", said: `The run does not answer; trying again${since}.`}]);
}

// An error of the page must not look like one of the run.
function shown(run) {
  document.body.classList.remove("gone");
  answeredAt = new Date();
  try {
    show(run);
  } catch (error) {
    console.error(error);
    tell([{check: "page", pipeline: "", said: `This page cannot show all of the snapshot (${error.message}). ` +
      "Reload it; the same figures are at /metrics."}]);
  }
}

async function refresh() {
  timer = null;
  let run = null;
  const mine = ++turn;
  try {
    const answer = await fetch(`api/snapshot${chosen && `?worker=${chosen}`}`, {signal: AbortSignal.timeout(TIMEOUT)});
    if (answer.ok) run = await answer.json();
  } catch { /* the same as an error response */ }
  if (mine !== turn) return;
  if (run) shown(run); else gone();
  timer = setTimeout(refresh, document.hidden ? HIDDEN : EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || timer === null) return;
  clearTimeout(timer);
  refresh();
});
refresh();
