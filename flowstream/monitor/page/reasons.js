// Why attempts failed, and what happened to the messages; traceback and sample after a click.

import {clock, make, number, percent, plural, span, text} from "./format.js";
import {block, keyed} from "./parts.js";

const COUNTS = {
  retried: count => `${number(count)} retried`,
  dead_lettered: count => `${number(count)} dead-lettered`,
  discarded: count => `${number(count)} discarded`,
  halted: count => `${number(count)} halted the run`,
};

// What happened to the messages of these reasons, in words.
export function became(reasons) {
  return Object.entries(COUNTS)
    .map(([name, told]) => [reasons.reduce((sum, each) => sum + each[name], 0), told])
    .filter(([count]) => count).map(([count, told]) => told(count));
}

const words = ({error, text: told}) =>
  !error || told.startsWith(error) ? told : `${error}: ${told}`;

const where = ({handler, stage, phase}) =>
  handler ? `${handler} in ${stage}` : !stage ? "" : phase && phase !== stage ? `${stage} (${phase})` : stage;

// The command that shows the first message; a failed commit has an offset but no message.
function first({stream, offset, phase}) {
  if (stream === null || offset === null) return "";
  const look = phase === "commit" ? "" : `: flowstream peek ${stream} --from ${offset} -n 1`;
  return ` The first was ${stream}@${offset}${look}`;
}

function line() {
  const why = make("span", {class: "why"}), place = make("span", {class: "soft"});
  const counts = make("span", {class: "counts"});
  const facts = make("p", {class: "soft"});
  const traceback = block("Traceback of the first"), sample = block("The first message");
  const withheld = make("p", {class: "soft"},
    "To see messages, open this page by IP address or as localhost.");
  const node = make("details", {class: "reason"},
    make("summary", {}, why, counts, place), facts, traceback.node, sample.node, withheld);
  return {node, update(reason, {now, total, samples}) {
    text(why, words(reason));
    const chips = Object.entries(COUNTS).filter(([name]) => reason[name])
      .map(([name, told]) => [name, told(reason[name])]);
    if (!chips.length) chips.push(["attempts", plural(reason.attempts, "attempt")]);
    const shown = chips.map(([, told]) => told).join();
    if (counts.dataset.shown !== shown) {
      counts.dataset.shown = shown;
      counts.replaceChildren(...chips.map(([name, told]) => make("span", {class: `chip ${name}`}, told)));
    }
    const share = total > 1 ? `, ${percent(reason.attempts / total)} of all failed attempts` : "";
    text(place, `${where(reason)} · last ${span(Math.max(now - reason.last, 0))} ago`);
    text(facts, `${plural(reason.attempts, "failed attempt")}${share}; first at ${clock(reason.first)}, ` +
      `last at ${clock(reason.last)}.${first(reason)}`);
    traceback.update(reason.traceback);
    sample.update(reason.sample);
    withheld.hidden = samples || reason.offset === null;
  }};
}

export function reasons() {
  const list = make("div", {class: "list", tabindex: "0", role: "group", "aria-label": "Reasons"});
  const node = make("div", {class: "card"}, make("h3", {}, "What failed, and why"), list);
  const lines = keyed(list, line, each => `${each.stage} ${each.phase} ${each.error} ${each.first}`);
  return {node, update(found, now, samples) {
    node.hidden = found.length === 0;
    const total = found.reduce((sum, each) => sum + each.attempts, 0);
    lines.update(found, {now, total, samples});
  }};
}
