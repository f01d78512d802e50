// Parts of the page. Each is created once and has `node` and `update(...)`.

import {chart} from "./chart.js";
import {className, make, number, text} from "./format.js";

// A figure with a note and a chart; `curves` has the names of several curves.
export function tile(title, unit, pointer, show = number, curves = [""]) {
  const figure = make("span"), small = make("small", {}, unit), note = make("div", {class: "note"});
  const value = make("div", {class: "value"}, figure, " ", small);
  const curve = chart(title, show, pointer, curves);
  const node = make("div", {class: "card tile"}, make("h3", {}, title), value, note, curve.node);
  return {node, update(amount, detail, at, series, tone = "") {
    text(figure, show(amount));
    figure.title = amount ?? "";
    text(note, detail);
    note.title = detail;
    className(value, `value ${tone}`);
    className(node, `card tile ${tone === "bad" ? "alarm" : ""}`);
    curve.update(at, ...series);
  }};
}

// A table with a row per key; `columns` have title, of(row) and optionally text, wrap, tone(row).
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
  const lines = keyed(body, () => {
    const cells = columns.map(column =>
      make("td", {class: column.wrap ? "wrap" : column.text ? "" : "number"}));
    return {node: make("tr", {}, ...cells), cells, update(row) {
      className(this.node, state(row));
      columns.forEach((column, place) => {
        text(cells[place], column.of(row));
        if (column.tone) className(cells[place], `${column.text ? "" : "number"} ${column.tone(row)}`);
      });
    }};
  }, key);

  return {node, update(rows) {
    lines.update(rows);
    region.hidden = rows.length === 0;
    nothing.hidden = rows.length > 0;
  }};
}

// The children of `parent`, one per key: created by `line()`, updated, moved and removed.
export function keyed(parent, line, key) {
  const lines = new Map();
  return {update(rows, ...more) {
    const seen = new Set();
    rows.forEach((row, index) => {
      const name = key(row);
      seen.add(name);
      if (!lines.has(name)) lines.set(name, line(row));
      const entry = lines.get(name);
      entry.update(row, ...more);
      if (parent.children[index] !== entry.node)
        parent.insertBefore(entry.node, parent.children[index] ?? null);
    });
    for (const [name, entry] of lines)
      if (!seen.has(name)) { entry.node.remove(); lines.delete(name); }
  }};
}

// A part that can be opened; `opened` is called each time.
export function fold(attributes, summary, opened, ...body) {
  const node = make("details", attributes, summary, ...body);
  node.addEventListener("toggle", () => { if (node.open) opened(); });
  return node;
}

// Preformatted text under a heading; hidden without text.
export function block(title) {
  const body = make("pre", {tabindex: "0"});
  const node = make("div", {class: "block"}, make("h4", {}, title), body);
  return {node, update(value) {
    node.hidden = !value;
    text(body, value ?? "");
  }};
}
