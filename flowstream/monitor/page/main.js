// Asks for the run's figures once a second and shows them; goes on by itself after a restart.

import {className, make, plural, rate, span, text} from "./format.js";
import {pipelineSection} from "./pipeline.js";

const EVERY = 1000, HIDDEN = 5000, TIMEOUT = 5000;
const sections = new Map();
const main = document.getElementById("pipelines");
const status = document.getElementById("status");
const ready = document.getElementById("ready");
let version = "";
let refused = "";
let answeredAt = null;
let timer = null;

function tell(lines) {
  const now = lines.join("\n");
  if (status.dataset.told === now) return;
  status.dataset.told = now;
  status.replaceChildren(...(lines.length
    ? [make("ul", {}, ...lines.map(line => make("li", {}, line)))] : []));
  className(status, lines.length ? "shown" : "");
}

function show(run) {
  if (version && run.version !== version) location.reload();
  version = run.version;
  const connections = Object.values(run.connections).reduce((sum, count) => sum + count, 0);
  text(document.getElementById("run"), `${run.version} · up ${span(run.uptime)} · ` +
    `${plural(connections, "connection")}` + (run.lost ? ` · ${run.lost} lost` : ""));
  const problems = run.not_ready.map(each =>
    `${each.pipeline ? each.pipeline + ": " : ""}${each.detail}`);
  text(ready, problems.length ? "not ready" : "ready");
  className(ready, `pill ${problems.length ? "bad" : "good"}`);
  tell(refused ? [...problems, refused] : problems);
  document.title = (problems.length ? "⚠ " : "") +
    (run.pipelines.map(each => `${each.name} ${rate(each.rate)}/s`).join(", ") || "flowstream");
  for (const pipeline of run.pipelines) {
    if (!sections.has(pipeline.name)) {
      const section = pipelineSection(pipeline.name, message => { refused = message; });
      sections.set(pipeline.name, section);
      main.append(section.node);
    }
    sections.get(pipeline.name).update(pipeline, run.control);
  }
  const names = new Set(run.pipelines.map(each => each.name));
  for (const [name, section] of sections)
    if (!names.has(name)) { section.node.remove(); sections.delete(name); }
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
    tell([`The run does not answer; trying again${since}.`]);
  }
  timer = setTimeout(refresh, document.hidden ? HIDDEN : EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || timer === null) return;
  clearTimeout(timer);
  refresh();
});
refresh();
