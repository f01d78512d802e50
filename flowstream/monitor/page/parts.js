// Parts of the page. Each is made once and has `node` and `update(...)`.

import {className, make, number, text} from "./format.js";

const WIDTH = 300, HEIGHT = 40;

function chart() {
  const area = make("path", {class: "area"});
  const curve = make("path", {class: "curve", "vector-effect": "non-scaling-stroke"});
  const node = make("svg", {class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none", role: "img"}, area, curve);
  return {node, update(points, label, show) {
    const top = Math.max(...points, 1e-9);
    const line = points.map((value, index) =>
      `${(index / Math.max(points.length - 1, 1) * WIDTH).toFixed(1)},` +
      `${(HEIGHT - value / top * (HEIGHT - 4) - 1).toFixed(1)}`).join(" L");
    const drawn = points.length > 1;
    curve.setAttribute("d", drawn ? `M${line}` : "");
    area.setAttribute("d", drawn ? `M${line} L${WIDTH},${HEIGHT} L0,${HEIGHT}Z` : "");
    const most = points.length ? `at most ${show(Math.max(...points))}` : "nothing yet";
    node.setAttribute("aria-label", `${label}, last ${points.length} seconds: ${most}`);
  }};
}

export function tile(title, unit, show = number) {
  const figure = make("span"), small = make("small", {}, unit), note = make("div", {class: "note"});
  const value = make("div", {class: "value"}, figure, " ", small);
  const curve = chart();
  const node = make("div", {class: "card tile"}, make("h3", {}, title), value, note, curve.node);
  return {node, update(amount, detail, points, tone = "") {
    text(figure, show(amount));
    text(note, detail);
    note.title = detail;
    className(value, `value ${tone}`);
    className(node, `card tile ${tone === "bad" ? "alarm" : ""}`);
    curve.update(points, title, show);
  }};
}

// A table of rows by key; `columns` have title, of(row) and optionally text, wrap, tone(row).
export function table(title, columns, {key, state = () => "", empty = ""}) {
  const head = make("tr");
  for (const column of columns)
    head.append(make("th", {scope: "col", class: column.text ? "" : "number"}, column.title));
  const body = make("tbody");
  const whole = make("table", {}, make("thead", {}, head), body);
  const region = make("div", {class: "scroll", tabindex: "0", role: "region",
    "aria-label": title}, whole);
  const nothing = make("p", {class: "empty"}, empty);
  const node = make("div", {class: "card"}, make("h3", {}, title), region, nothing);
  const lines = new Map();

  function line() {
    const cells = columns.map(column =>
      make("td", {class: column.wrap ? "wrap" : column.text ? "" : "number"}));
    return {node: make("tr", {}, ...cells), cells};
  }

  return {node, update(rows) {
    const seen = new Set();
    rows.forEach((row, index) => {
      const name = key(row);
      seen.add(name);
      if (!lines.has(name)) lines.set(name, line());
      const entry = lines.get(name);
      className(entry.node, state(row));
      columns.forEach((column, place) => {
        const cell = entry.cells[place];
        text(cell, column.of(row));
        if (column.tone) className(cell, `${column.text ? "" : "number"} ${column.tone(row)}`);
      });
      if (body.children[index] !== entry.node)
        body.insertBefore(entry.node, body.children[index] ?? null);
    });
    for (const [name, entry] of lines)
      if (!seen.has(name)) { entry.node.remove(); lines.delete(name); }
    region.hidden = rows.length === 0;
    nothing.hidden = rows.length > 0;
  }};
}
