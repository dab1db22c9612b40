// Pages of words: welcome, instructions, questionnaire, thanks.

import { h } from "./dom.js";
import { currentLanguage, tr } from "./i18n.js";
import { announce, paragraphs } from "./screens.js";

export function message(title, texts, ...rest) {
  return h("section.card.words", {}, h("h1", {}, title), texts.map((text) => h("p", {}, text)), rest);
}

/** Welcome, with consent where the study asks for it. */
export function welcome(study, count, begin) {
  const box = study.consent ? h("input", { type: "checkbox", id: "agree" }) : null;
  const note = h("p.field-error", { role: "alert" });
  const go = async (event) => {
    event.preventDefault();
    if (box && !box.checked) {
      note.textContent = tr("consent_needed");
      box.focus();
      return;
    }
    await begin();
  };
  return h(
    "form.card.words.welcome",
    { onsubmit: go, novalidate: true },
    h("p.eyebrow", {}, tr("listening_test")),
    h("h1", {}, study.title),
    count ? h("p.lead", {}, tr("about_pages", { count })) : null,
    box ? h("div.consent", { role: "region", "aria-label": tr("consent"), tabindex: "0" }, paragraphs(study.consent)) : null,
    box ? h("label.agree", {}, box, h("span", {}, tr("agree"))) : null,
    note,
    h("div.card-foot", {}, h("span"), h("button.primary", { type: "submit" }, tr("begin"))),
  );
}

export function instructions(study, go) {
  return h(
    "section.card.words",
    {},
    h("h1", {}, tr("how")),
    study.instructions ? paragraphs(study.instructions) : study.parts.map(({ kind }) => h("p", {}, tr(`how_${kind}`))),
    h("p", {}, tr("how_loop")),
    h("p", {}, tr("how_saved")),
    h("div.card-foot", {}, h("span"), h("button.primary", { type: "button", onclick: go }, tr("next"))),
  );
}

/** The questionnaire; `send(answers)` saves them. */
export function questionnaire(questions, known, send) {
  const fields = questions.map((question) => field(question, known[question.name] ?? ""));
  const submit = async (event) => {
    event.preventDefault();
    const wrong = fields.map((one) => one.check()).findIndex((problem) => problem);
    if (wrong >= 0) {
      announce(fields[wrong].check());
      fields[wrong].focus();
      return;
    }
    await send(Object.fromEntries(fields.map((one) => [one.name, one.value()])));
  };
  return h(
    "form.card.words",
    { onsubmit: submit, novalidate: true },
    h("h1", {}, tr("questions")),
    fields.map((one) => one.element),
    h("div.card-foot", {}, h("span"), h("button.primary", { type: "submit" }, tr("next"))),
  );
}

function field(question, known) {
  const id = `question-${question.name}`;
  const common = { id, name: question.name, "aria-describedby": `${id}-error`, "aria-required": String(question.required) };
  let input;
  if (question.type === "choice") {
    const options = [h("option", { value: "" }, tr("choose")), ...question.choices.map((choice) => h("option", { value: choice }, choice))];
    input = h("select", common, options);
    input.value = known;
  } else if (question.type === "number") {
    input = h("input", { ...common, type: "text", inputmode: "decimal", value: known, maxlength: 32 });
  } else {
    input = h("textarea", { ...common, rows: 2, value: known, maxlength: 2000 });
  }
  const error = h("p.field-error", { id: `${id}-error` });
  const problem = () => {
    const text = input.value.trim();
    if (question.required && !text) return tr("answer_needed");
    if (question.type === "number" && text && !Number.isFinite(Number(text.replace(",", ".")))) return tr("number_needed");
    return "";
  };
  const label = h("label", { for: id }, question.question, question.required ? null : h("span.muted", {}, ` (${tr("optional")})`));
  return {
    name: question.name,
    element: h("div.field", {}, label, input, error),
    focus: () => input.focus(),
    value: () => (question.type === "number" ? input.value.trim().replace(",", ".") : input.value.trim()),
    check: () => {
      error.textContent = problem();
      input.setAttribute("aria-invalid", String(error.textContent !== ""));
      return error.textContent;
    },
  };
}

/** The end; `another` begins anew on a shared computer. */
export function thanks(study, finished, another) {
  const copy = h("button.quiet", { type: "button", onclick: () => copyText(finished.code, copy) }, tr("copy"));
  return h(
    "section.card.words.done",
    {},
    h("h1", {}, tr("done")),
    study.closing ? paragraphs(study.closing) : null,
    h("p", {}, tr("done_text")),
    h("p.code-name", {}, tr("code")),
    h("div.code", {}, h("code", { lang: currentLanguage() }, finished.code), copy),
    finished.url ? h("div.card-foot", {}, h("span"), h("a.primary", { href: safeUrl(finished.url) }, tr("go_to"))) : null,
    another ? h("p.another", {}, h("button.quiet", { type: "button", onclick: another }, tr("another"))) : null,
  );
}

function safeUrl(url) {
  const parsed = new URL(url, document.baseURI);
  return ["http:", "https:"].includes(parsed.protocol) ? parsed.href : "#";
}

export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = tr("copied");
    announce(tr("copied"));
  } catch {
    window.prompt(tr("copy"), text); // without https there is no clipboard
  }
}
