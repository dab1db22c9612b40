// How a trial is answered: sliders or steps for many sounds, steps for one, a choice for two.

import { h } from "./dom.js";
import { tr } from "./i18n.js";

/** BS.1116: labels stand for the whole numbers of the scale; elsewhere each stands for a part of it. */
const hasPoints = ({ labels, scale: [low, high] }) => high - low === labels.length - 1;

/** The label of the fifth (or n-th part) of the scale that a value lies in, or of the nearest whole number. */
export function labelOf(value, attribute) {
  const { labels, scale: [low, high] } = attribute;
  if (hasPoints(attribute)) return labels[Math.round(value - low)];
  return labels[Math.min(labels.length - 1, Math.floor(((value - low) / (high - low)) * labels.length))];
}

/**
 * MUSHRA, BS.1116 and BS.2132: one row per sound, one slider per attribute.
 * `trial` has `button(name)`, `mayRate(name)`, `rated(slot, attribute, value)` and `value(slot, attribute)`.
 */
export function sliderBoard(trial) {
  const { attributes } = trial.study;
  const board = h("div.board", { "data-attributes": attributes.length });
  board.append(
    h(
      "div.board-head",
      { "aria-hidden": "true" },
      h("span.corner"),
      attributes.map((attribute) =>
        h(
          "div.scale-head",
          {},
          attributes.length > 1 ? h("strong", {}, attribute.question) : null,
          h("div.scale-labels", hasPoints(attribute) ? { "data-points": "" } : {}, attribute.labels.map((label) => h("span", {}, label))),
        ),
      ),
      attributes.length > 1 ? null : h("span.corner-end"),
    ),
  );
  for (let slot = 0; slot < trial.plan.sounds; slot++) {
    board.append(
      h(
        "div.row",
        { "data-sound": slot },
        trial.button(String(slot)),
        attributes.map((attribute) => slider(trial, slot, attribute, attributes.length > 1)),
      ),
    );
  }
  return board;
}

function slider(trial, slot, attribute, several) {
  const known = trial.value(slot, attribute.name);
  const [low, high] = attribute.scale;
  const digits = high - low > 10 ? 0 : 1;
  const number = h("output.number", { "aria-hidden": "true" });
  const word = h("span.word", { "aria-hidden": "true" });
  const input = h("input", {
    type: "range",
    min: low,
    max: high,
    step: 10 ** -digits,
    value: known ?? (low + high) / 2,
    "data-attribute": attribute.name,
    "aria-label": tr("rate_sound", { sound: slot + 1, question: attribute.question }),
  });
  const cell = h("div.cell", {});
  let last = Number(input.value);
  const show = (set) => {
    last = Number(input.value);
    cell.classList.toggle("unset", !set);
    number.textContent = set ? last.toFixed(digits) : "–";
    word.textContent = set ? labelOf(last, attribute) : tr("not_rated");
    input.setAttribute("aria-valuetext", set ? `${input.value}, ${word.textContent}` : tr("not_rated"));
    cell.style.setProperty("--value", (100 * (last - low)) / (high - low));
  };
  const rate = () => {
    if (!trial.mayRate(String(slot))) {
      input.value = last;
      return;
    }
    show(true);
    trial.rated({ slot, attribute: attribute.name, value: last });
  };
  input.addEventListener("input", rate);
  // Letting go in the middle is an answer, too.
  input.addEventListener("pointerup", () => cell.classList.contains("unset") && rate());
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && cell.classList.contains("unset")) rate();
  });
  const bands = h("div.bands", { "aria-hidden": "true" }, attribute.labels.slice(hasPoints(attribute) ? 1 : 0).map(() => h("i")));
  cell.append(
    ...(several ? [h("span.cell-name", { "aria-hidden": "true" }, attribute.question)] : []),
    h("div.slide", {}, bands, input),
    h("div.readout", {}, number, word),
  );
  show(known !== undefined);
  return cell;
}

/** ACR and DCR: the steps of a scale, best first. */
export function steps(trial, slot = 0) {
  return trial.study.attributes.map((attribute) => {
    const known = trial.value(slot, attribute.name);
    const options = attribute.labels.map((label, n) => ({ value: n + 1, label, number: n + 1 })).reverse();
    const chosen = (value) => {
      if (!trial.mayRate(String(slot))) return false;
      trial.rated({ slot, attribute: attribute.name, value });
      return true;
    };
    return choices(attribute, options, known, chosen, slot);
  });
}

/** Likert: one row per sound, the steps of a scale in each. */
export function stepBoard(trial) {
  const slots = Array.from({ length: trial.plan.sounds }, (_, slot) => slot);
  return h(
    "div.board",
    { "data-attributes": 1 },
    slots.map((slot) => h("div.row", { "data-sound": slot }, trial.button(String(slot)), h("div", {}, steps(trial, slot)))),
  );
}

/** ABX and AB: one of two, or neither where the study allows it. */
export function pairChoice(trial) {
  const isAbx = trial.study.kind === "abx";
  return trial.study.attributes.map((attribute) => {
    const options = ["a", "b"].map((value) => ({
      value,
      label: isAbx ? tr("x_is", { sound: value.toUpperCase() }) : value.toUpperCase(),
    }));
    if (trial.study.ties) options.splice(1, 0, { value: "tie", label: tr("tie") });
    const asked = isAbx ? { ...attribute, question: tr("which_is_x") } : attribute;
    return choices(asked, options, trial.value(null, attribute.name), (choice) => {
      if (!trial.mayRate(null)) return false;
      trial.rated({ choice, attribute: attribute.name });
      return true;
    });
  });
}

function choices(attribute, options, known, chosen, slot = 0) {
  const name = `answer-${attribute.name}-${slot}`;
  const inputs = options.map(({ value, label, number }) => {
    const input = h("input", { type: "radio", name, value: String(value), checked: value === known });
    input.addEventListener("change", () => {
      if (!chosen(value)) input.checked = false;
    });
    return h("label.option", {}, input, number ? h("b", {}, String(number)) : null, h("span", {}, label));
  });
  const set = h("fieldset.choices", { "data-attribute": attribute.name }, h("legend", {}, attribute.question), h("div.options", {}, inputs));
  set.classList.toggle("stacked", options.length > 3);
  return set;
}
