// The whole run: its event log, and the CPU and memory of the process.

import {cursor} from "./chart.js";
import {bytes, clock, make, number, percent, text} from "./format.js";
import {keyed, tile} from "./parts.js";

const LEVELS = {info: "", warning: "warning: ", error: "error: "};

function entry() {
  const at = make("time"), what = make("span", {class: "what"});
  const node = make("li", {}, at, what);
  return {node, update(event) {
    node.className = event.level;
    const now = clock(event.at);
    text(at, now);
    at.title = new Date(event.at * 1000).toISOString();
    text(what, LEVELS[event.level] + (event.pipeline ? `${event.pipeline}: ` : "") + event.text +
      (event.count > 1 ? ` (${number(event.count)} times)` : ""));
  }};
}

export function runSection() {
  const list = make("ol", {class: "events", tabindex: "0", "aria-label": "Event log"});
  const log = keyed(list, entry, event => `${event.level} ${event.pipeline} ${event.text} ${event.at}`);
  const nothing = make("p", {class: "empty"}, "Nothing has happened yet.");
  const pointer = cursor();
  const cores = value => percent(value);
  const cpu = tile("CPU", "of a core", pointer, cores);
  const memory = tile("Memory", "", pointer, bytes);
  const node = make("section", {class: "run", "aria-label": "this run"},
    make("div", {class: "title"}, make("h2", {}, "This run")),
    make("div", {class: "about"},
      make("div", {class: "card log"}, make("h3", {}, "Event log, the newest first"), list, nothing),
      make("div", {class: "process"}, cpu.node, memory.node)));
  return {node, update({events, process}) {
    log.update(events);
    list.hidden = events.length === 0;
    nothing.hidden = events.length > 0;
    const {history} = process;
    cpu.update(process.cpu, process.pid ? `${number(process.cores)} cores, process ${process.pid}`
      : `${number(process.cores)} cores, all workers together`,
      history.at, [history.cpu], process.pid && process.cpu > 0.95 ? "warn" : "");
    memory.update(process.memory, process.pid ? "resident, without worker processes" : "resident, all workers together", history.at, [history.memory]);
  }};
}
