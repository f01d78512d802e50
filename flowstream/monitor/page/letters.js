// The dead letters of a pipeline: fetched when opened, read one by one, and replayed.

import {ask, make, number, plural, text} from "./format.js";
import {block, fold, keyed} from "./parts.js";

// A button for what cannot be undone: the first click asks, the second one acts.
function careful(label, sure, act) {
  const node = make("button", {type: "button"}, label);
  let armed = false;
  const rest = () => { armed = false; text(node, label); };
  node.addEventListener("blur", rest);
  node.addEventListener("click", async () => {
    if (!armed) { armed = true; text(node, sure); return; }
    node.disabled = true;
    try { await act(); } finally { node.disabled = false; rest(); }
  });
  return node;
}

export function letters(pipeline) {
  const query = `api/dead-letters?pipeline=${encodeURIComponent(pipeline)}`;
  const said = make("p", {class: "soft", role: "status"});
  const list = make("div", {class: "list", tabindex: "0", role: "group", "aria-label": "Letters"});
  const buttons = make("p", {class: "buttons"});
  const summary = make("summary", {}, make("h3"));
  const node = fold({class: "card"}, summary, load, said, buttons, list);
  const all = careful("Replay all", "Publish them again?", () => replay("waiting"));
  const lines = keyed(list, letter, each => each.offset);
  let stream = "", control = false, buried = -1;

  async function load() {
    try {
      const found = await ask(query);
      text(said, found.waiting === 0 ? "No dead letters to replay."
        : `${found.exact ? "" : "At most "}${plural(found.waiting, "dead letter")} to replay` +
          (found.letters.length < found.waiting ? `; the newest ${number(found.letters.length)}:` : ":"));
      lines.update(found.letters);
    } catch (error) {
      text(said, `The dead letters cannot be read: ${error.message}`);
    }
  }

  async function replay(offsets) {
    try {
      const done = await ask("api/dead-letters", {pipeline, offsets});
      const left = Object.entries(done.left).map(([offset, why]) => `letter ${offset}: ${why}`);
      const told = Object.entries(done.replayed)
        .map(([to, count]) => `${plural(count, "message")} replayed into ${to}`);
      await load();
      text(said, [...(told.length ? told : ["No messages were replayed"]), ...left].join("; "));
    } catch (error) {
      text(said, `Not replayed: ${error.message}`);
    }
  }

  function letter({offset}) {
    const why = make("span", {class: "why"}), place = make("span", {class: "soft"});
    const facts = make("p", {class: "soft"}), body = block("Body"), traceback = block("Traceback");
    const again = careful("Replay this one", "Publish it again?", () => replay([offset]));
    const opened = async () => {
      try {
        const found = await ask(`${query}&offset=${offset}`);
        const whole = known => known.length < found.size ? ` (the beginning of ${number(found.size)} bytes)` : "";
        text(facts, [found.error, found.missing,
          ...Object.entries(found.properties ?? {}).map(([name, value]) => `${name}=${value}`)]
          .filter(Boolean).join(" · ") + whole(found.body ?? ""));
        body.update(found.body);
        traceback.update(found.traceback);
      } catch (error) {
        text(facts, error.message);
      }
    };
    body.update(""); traceback.update("");
    const buttons = make("p", {class: "buttons"});
    const node = fold({class: "reason"}, make("summary", {}, why, place), opened,
      facts, body.node, traceback.node, buttons);
    return {node, update(row) {
      text(why, row.reason);
      text(place, `${row.source} · ${row.stage} (${row.phase}) · ${row.time} · ` +
        plural(row.attempts, "attempt"));
      // Only on a change: a button that is inserted again loses the focus, and the confirmation.
      if (buttons.hasChildNodes() !== control) buttons.replaceChildren(...(control ? [again] : []));
    }};
  }

  return {node, update(shown, controllable, count) {
    node.hidden = !shown;
    if (!shown) return;
    if (controllable !== control || shown !== stream) {
      [stream, control] = [shown, controllable];
      buttons.replaceChildren(...(control ? [all] : []));
    }
    text(summary.firstChild, `Dead letters in ${stream}` + (count ? `: ${number(count)} of this run` : ""));
    if (node.open && count !== buried) load();
    buried = count;
  }};
}
