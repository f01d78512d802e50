// The options in force of a pipeline and its stages: fetched when opened.

import {ask, make, text} from "./format.js";
import {fold} from "./parts.js";

function group({kind, name, options}) {
  const rows = options.map(option => make("tr", option.default ? {} : {class: "set"},
    make("td", {}, option.name), make("td", {class: "wrap"}, option.value),
    make("td", {class: "wrap soft"}, option.about)));
  const title = kind === name ? kind : `${kind} ${name}`;
  const head = make("tr", {}, ...["option", "value", "meaning"]
    .map(each => make("th", {scope: "col"}, each)));
  return make("div", {}, make("h4", {}, title),
    make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": title},
      make("table", {class: "options"}, make("thead", {}, head), make("tbody", {}, ...rows))));
}

export function settings(pipeline) {
  const said = make("p", {class: "soft"}), list = make("div", {class: "settings"});
  async function load() {
    try {
      const groups = await ask(`api/settings?pipeline=${encodeURIComponent(pipeline)}`);
      list.replaceChildren(...groups.filter(each => each.options.length).map(group));
      text(said, "Options that differ from their default are bold.");
    } catch (error) {
      text(said, error.message);
    }
  }
  const node = fold({class: "card"}, make("summary", {}, make("h3", {}, "Settings in force")),
    load, said, list);
  return {node};
}
