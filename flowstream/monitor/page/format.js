// Creates elements, and formats figures.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "title"]);
const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", {notation: "compact", maximumFractionDigits: 1});

export function make(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const known = value => value !== null && value !== undefined;

// At most seven characters for any value.
export function number(value) {
  if (!known(value)) return "–";
  if (Math.abs(value) >= 1e15) return value.toExponential(1);
  return Math.abs(value) >= 1e6 ? compact.format(value) : whole.format(Math.round(value));
}

export const offset = value => known(value) ? whole.format(value) : "–";

export function rate(value) {
  return value > 0 && value < 10 ? value.toFixed(1) : number(value);
}

export function span(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 0.0005) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${number(seconds / 86400)} days`;
}

export const clock = time => new Date(time * 1000).toLocaleTimeString("en-GB");

export function bytes(value) {
  if (!known(value)) return "–";
  if (value < 1024) return `${value} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let unit = -1;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

export const percent = share => known(share) ? `${Math.round(share * 100)} %` : "–";

export const plural = (count, word, words = `${word}s`) =>
  `${number(count)} ${count === 1 ? word : words}`;

// Sets the text only if it changed: otherwise selections are lost and screen readers repeat it.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

export function className(node, value) {
  if (node.getAttribute("class") !== value) node.setAttribute("class", value);
}

// The advice, and a link to the runbook.
export function advice({advice: words, runbook}) {
  const node = make("span", {class: "advice"}, words ?? "");
  if (runbook) node.append(" ", make("a", {href: runbook, target: "_blank"}, "Runbook"));
  return node;
}

// Sends a request to this run; throws an Error with the response text if it fails.
export async function ask(path, body) {
  const options = body === undefined ? {} : {method: "POST",
    headers: {"content-type": "application/json"}, body: JSON.stringify(body)};
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error((await answer.text()).trim() || `response ${answer.status}`);
  return answer.json();
}
