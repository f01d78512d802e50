// Curves over the last minutes, with an axis of times and the values at the pointer.

import {className, clock, make, span, text} from "./format.js";

const WIDTH = 300, HEIGHT = 48;

// Charts that show the same moment: what the pointer is at in one is shown in all of them.
export function cursor() {
  const charts = new Set();
  return {
    add(chart) { charts.add(chart); },
    point(share) { for (const chart of charts) chart.point(share); },
  };
}

// `curves` are names of what is drawn, the first one with its area; `show` makes a value readable.
export function chart(title, show, pointer, curves = [""]) {
  const area = make("path", {class: "area"});
  const lines = curves.map((_, index) =>
    make("path", {class: index ? "curve second" : "curve", "vector-effect": "non-scaling-stroke"}));
  const mark = make("path", {class: "mark", "vector-effect": "non-scaling-stroke"});
  const drawing = make("svg", {class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none", role: "img"}, area, ...lines, mark);
  const most = make("span", {class: "most"});
  const from = make("span"), to = make("span");
  const axis = make("div", {class: "axis", "aria-hidden": "true"}, from, to);
  const node = make("div", {class: "plot"}, most, drawing, axis);
  let at = [], series = [], pointed = null, highest = "";

  const place = time => at.length < 2 ? 0 : (time - at[0]) / (at.at(-1) - at[0] || 1);

  function path(points, top) {
    return "M" + points.map((value, index) => `${(place(at[index]) * WIDTH).toFixed(1)},` +
      `${(HEIGHT - value / top * (HEIGHT - 4) - 1).toFixed(1)}`).join(" L");
  }

  function nearest(share) {
    let best = 0;
    for (let index = 1; index < at.length; index += 1)
      if (Math.abs(place(at[index]) - share) < Math.abs(place(at[best]) - share)) best = index;
    return best;
  }

  function label() {
    const drawn = at.length > 1;
    className(node, drawn && pointed !== null ? "plot pointed" : "plot");
    if (!drawn || pointed === null) {
      text(from, drawn ? `${span(at.at(-1) - at[0])} ago` : "");
      text(to, drawn ? "now" : "");
      text(most, highest);
      mark.setAttribute("d", "");
      return;
    }
    const index = nearest(pointed), x = (place(at[index]) * WIDTH).toFixed(1);
    mark.setAttribute("d", `M${x},0 L${x},${HEIGHT}`);
    text(from, clock(at[index]));
    text(to, "");
    text(most, curves.map((name, curve) => `${name} ${show(series[curve][index])}`.trim()).join(", "));
  }

  const pointing = event => {
    const frame = drawing.getBoundingClientRect();
    pointer.point(Math.min(Math.max((event.clientX - frame.left) / (frame.width || 1), 0), 1));
  };
  drawing.addEventListener("pointermove", pointing);
  drawing.addEventListener("pointerdown", pointing);
  drawing.addEventListener("pointerleave", () => pointer.point(null));

  const self = {
    node,
    point(share) { pointed = share; label(); },
    update(times, ...values) {
      [at, series] = [times, values];
      const top = Math.max(...values.flat(), 1e-9), drawn = times.length > 1;
      lines.forEach((line, index) => line.setAttribute("d", drawn ? path(values[index], top) : ""));
      area.setAttribute("d", drawn ? `${path(values[0], top)} L${WIDTH},${HEIGHT} L0,${HEIGHT}Z` : "");
      highest = drawn && top > 1e-9 ? `at most ${show(top)}` : "";
      drawing.setAttribute("aria-label", `${title}, last ${times.length} seconds: ` +
        (highest || (drawn ? show(0) : "nothing yet")));
      label();
    },
  };
  pointer.add(self);
  return self;
}
