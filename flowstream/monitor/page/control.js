// Pause, resume and rate limit, if the run allows it (--http-control).

import {ask, known, make, text} from "./format.js";

export function controls(name, failed) {
  let paused = false;
  const pause = make("button", {type: "button"}, "Pause");
  const input = make("input", {type: "text", inputmode: "decimal", autocomplete: "off",
    placeholder: "no limit", id: `limit-${name}`});
  const label = make("label", {for: `limit-${name}`}, "messages/s");
  const limit = make("button", {type: "submit"}, "Limit");
  const form = make("form", {class: "controls", "aria-label": `Control ${name}`},
    pause, label, input, limit);

  async function send(body) {
    try {
      await ask("api/control", {pipeline: name, ...body});
      failed("");
    } catch (error) {
      failed(`${name}: ${error.message}`);
    }
  }

  pause.addEventListener("click", () => send({action: paused ? "resume" : "pause"}));
  form.addEventListener("submit", event => {
    event.preventDefault();
    const asked = input.value.trim(), messages = asked === "" ? null : Number(asked);
    if (messages === null || messages > 0) send({action: "rate_limit", messages});
    else failed(`${name}: "${asked}" is not a valid limit. Enter a number greater than 0, or nothing ` +
      "for no limit. Pause stops the intake.");
  });
  return {node: form, update(pipeline) {
    paused = pipeline.phase === "paused";
    text(pause, paused ? "Resume" : "Pause");
    const limited = pipeline.rate_limit?.messages;
    if (document.activeElement !== input && input.dataset.shown !== String(limited)) {
      input.value = known(limited) ? limited / pipeline.rate_limit.interval : "";
      input.dataset.shown = String(limited);
    }
  }};
}
