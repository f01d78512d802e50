// Returns what is wrong on the page for people who cannot see it well, or not at all.
const wrong = [];
const seen = node => node.checkVisibility({visibilityProperty: true}) && node.getClientRects().length;
const told = node => `<${node.localName} class="${node.getAttribute("class") ?? ""}"> ` +
  node.textContent.trim().slice(0, 40);

function rgba(text) {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}
function over(top, under) {
  const mixed = [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  return [...mixed, 1];
}
function background(node) {
  const layers = [];
  for (let each = node; each; each = each.parentElement)
    layers.unshift(rgba(getComputedStyle(each).backgroundColor));
  return layers.reduce((under, top) => over(top, under), [255, 255, 255, 1]);
}
function luminance(colour) {
  const [r, g, b] = colour.slice(0, 3).map(value => {
    const part = value / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(node, pseudo) {
  const under = background(node);
  const [a, b] = [luminance(over(rgba(getComputedStyle(node, pseudo).color), under)), luminance(under)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

if (!document.documentElement.lang) wrong.push("the page has no language");
if (!document.title) wrong.push("the page has no title");
if (document.querySelectorAll("main").length !== 1) wrong.push("there is not one main landmark");
const ids = [...document.querySelectorAll("[id]")].map(node => node.id);
if (new Set(ids).size !== ids.length) wrong.push("an id is there twice");

let level = 0;
for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
  const next = Number(heading.localName[1]);
  if (next > level + 1) wrong.push(`h${next} after h${level}: ${told(heading)}`);
  level = next;
}
for (const node of document.querySelectorAll("button, input, a, [role=img], [role=region], section, form")) {
  if (!seen(node)) continue;
  const label = node.getAttribute("aria-label") || node.textContent.trim() ||
    [...(node.labels ?? [])].map(each => each.textContent).join("");
  if (!label) wrong.push(`without a name: ${told(node)}`);
}
for (const svg of document.querySelectorAll("svg"))
  if (svg.getAttribute("role") !== "img" && svg.getAttribute("aria-hidden") !== "true")
    wrong.push(`a drawing with neither a name nor hidden: ${told(svg)}`);
for (const node of document.querySelectorAll("th"))
  if (!node.scope || !node.textContent.trim()) wrong.push(`a heading cell without scope or text`);
for (const node of document.querySelectorAll(".scroll"))
  if (seen(node) && node.tabIndex !== 0) wrong.push(`scrolls, but not with the keyboard: ${told(node)}`);
for (const node of document.querySelectorAll("button, input"))
  if (seen(node) && node.getBoundingClientRect().height < 24) wrong.push(`too small: ${told(node)}`);

const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !seen(node) || node.localName === "noscript") continue;
  const style = getComputedStyle(node), size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const found = contrast(node);
  if (found < (large ? 3 : 4.5)) wrong.push(`contrast ${found.toFixed(2)}: ${told(node)}`);
}
for (const node of document.querySelectorAll("input"))
  if (seen(node) && contrast(node, "::placeholder") < 4.5) wrong.push(`contrast of a placeholder`);
if (document.documentElement.scrollWidth > innerWidth)
  wrong.push(`wider than the screen: ${document.documentElement.scrollWidth} of ${innerWidth}`);
return wrong;
