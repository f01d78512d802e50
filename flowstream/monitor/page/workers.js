// The worker processes of a run (--workers): which reads what, and the choice of one of them.

import {bytes, make, number, percent, rate, span, text} from "./format.js";
import {keyed, table} from "./parts.js";

const WORKERS = [
  {title: "worker", text: true, of: r => `${r.number}${r.replacement ? " (new)" : ""}`},
  {title: "process", of: r => r.pid ?? "–"},
  {title: "state", text: true, of: r => `${r.state} for ${span(r.seconds)}`,
    tone: r => r.state === "ready" ? "" : "warn"},
  {title: "reads", text: true, wrap: true, of: r => r.partitions.join(", ") || "nothing"},
  {title: "settled/s", of: r => rate(r.rate)},
  {title: "settled", of: r => number(r.settled)},
  {title: "failed", of: r => number(r.failed), tone: r => r.failed ? "bad" : ""},
  {title: "in flight", of: r => number(r.in_flight)},
  {title: "CPU", of: r => percent(r.cpu)},
  {title: "memory", of: r => bytes(r.memory)},
  {title: "restarts", text: true, wrap: true,
    of: r => r.last_error ? `${number(r.restarts)}: ${r.last_error}` : number(r.restarts)},
];

// `choose` is called with the number of a worker, or "" for all.
export function workersSection(choose) {
  const rows = table("Workers", WORKERS, {key: r => `${r.number} ${r.replacement}`,
    state: r => r.state === "waiting" ? "alarm" : "", empty: "No worker is running."});
  const select = make("select", {id: "worker"});
  const label = make("label", {for: "worker"}, "Show");
  const options = keyed(select, ({value, name}) => {
    const node = make("option", {value}, name);
    return {node, update() {}};
  }, ({value}) => value);
  select.addEventListener("change", () => choose(select.value));
  const node = make("section", {class: "workers", "aria-label": "Workers"},
    make("form", {class: "controls"}, label, select), rows.node);
  return {node, update({workers, numbers}) {
    options.update([{value: "", name: "all workers"},
      ...numbers.map(value => ({value: `${value}`, name: `worker ${value}`}))]);
    rows.update(workers);
    text(label, "Show");
  }};
}
