// The administrator's page: who is how far, links, and downloads.

import { Api, ApiError } from "./api.js";
import { h } from "./dom.js";
import { copyText } from "./forms.js";
import { LANGUAGES, currentLanguage, setLanguage, tr } from "./i18n.js";
import { show } from "./screens.js";

const KEPT = `polyres-listen ${new URL(".", document.baseURI).pathname} admin`;
const REFRESH_MS = 10000;
const TABLES = ["ratings", "listeners", "answers", "events"];

const api = new Api();
let links = "";

function login(problem = "") {
  const field = h("input", { type: "password", id: "token", autocomplete: "off" });
  const open = (event) => {
    event.preventDefault();
    api.token = field.value.trim();
    sessionStorage.setItem(KEPT, api.token);
    refresh(true);
  };
  show(
    h(
      "form.card.words",
      { onsubmit: open },
      h("h1", {}, tr("admin")),
      h("div.field", {}, h("label", { for: "token" }, tr("admin_token")), field, h("p.field-error", { role: "alert" }, problem)),
      h("div.card-foot", {}, h("span"), h("button.primary", { type: "submit" }, tr("admin_open"))),
    ),
  );
}

async function refresh(first = false) {
  if (!api.token) return login();
  if (!first && document.querySelector("form.inline :focus, textarea:focus")) return undefined;
  try {
    draw(await api.call("GET", "admin/progress"), first);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) return login(tr("admin_wrong"));
    document.querySelector("#saved").textContent = tr("back_soon");
  }
  return undefined;
}

function draw(progress, first) {
  document.querySelector("#saved").textContent = "";
  const listeners = progress.listeners;
  const finished = listeners.filter((listener) => listener.finished_at).length;
  const count = h("input", { type: "text", inputmode: "numeric", id: "count", value: "10" });
  const make = async (event) => {
    event.preventDefault();
    const made = await api.call("POST", "admin/links", { count: Math.min(1000, Math.max(1, Number(count.value) || 1)) });
    links = made.links.join("\n");
    await refresh(true);
  };
  const content = [
    h("h1", {}, progress.title),
    h("p.lead", {}, tr("admin_listeners", { count: listeners.length, finished })),
    h("div.admin-bar", {}, h("strong", {}, tr("admin_export")), TABLES.flatMap((table) => ["csv", "json"].map((type) => download(table, type)))),
    h(
      "form.inline.admin-bar",
      { onsubmit: make },
      h("label", { for: "count" }, tr("admin_link_count")),
      count,
      h("button.quiet", { type: "submit" }, tr("admin_links")),
      h("button.quiet", { type: "button", onclick: (event) => copyText(progress.join_link, event.target) }, tr("admin_join")),
    ),
    links ? h("textarea.links", { readonly: true, "aria-label": tr("admin_links"), value: links }) : null,
    listeners.length ? table(listeners) : h("p.muted", {}, tr("admin_none")),
  ];
  const card = h("section.card", {}, content);
  if (first) show(card);
  else document.querySelector("main").replaceChildren(card);
}

function download(name, type) {
  const get = async () => {
    const answer = await api.send("GET", `admin/export/${name}.${type}`);
    const link = h("a", { href: URL.createObjectURL(await answer.blob()), download: `${name}.${type}` });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return h("button.quiet", { type: "button", onclick: get }, `${name}.${type}`);
}

function table(listeners) {
  const columns = ["number", "listener", "external", "state", "progress", "headphones", "seen"];
  const state = (one) => tr(one.withdrawn_at ? "state_withdrawn" : one.finished_at ? "state_finished" : "state_open");
  const rows = listeners.map((one) =>
    h(
      "tr",
      {},
      h("td", {}, one.number === null ? "–" : String(one.number)),
      h("td", {}, h("code", {}, one.listener)),
      h("td", {}, one.external_id || "–"),
      h("td", {}, state(one)),
      h("td", {}, h("progress", { max: one.owed || 1, value: one.ratings, "aria-label": tr("column_progress") }), `${one.ratings} / ${one.owed}`),
      h("td", {}, one.headphones_passed === null ? "–" : tr(one.headphones_passed ? "yes" : "no")),
      h("td", {}, one.seen_at ? new Date(one.seen_at).toLocaleString(currentLanguage()) : "–"),
    ),
  );
  const head = h("tr", {}, columns.map((name) => h("th", { scope: "col" }, tr(`column_${name}`))));
  return h("div.scroller", { tabindex: "0", role: "region", "aria-label": tr("admin") }, h("table", {}, h("thead", {}, head), h("tbody", {}, rows)));
}

function start() {
  const select = document.querySelector("#language");
  for (const [tag, texts] of Object.entries(LANGUAGES)) select.append(h("option", { value: tag }, texts.language));
  select.value = currentLanguage();
  document.documentElement.lang = currentLanguage();
  select.addEventListener("change", () => {
    setLanguage(select.value);
    document.documentElement.lang = currentLanguage();
    refresh(true);
  });
  const fromLink = decodeURIComponent(location.hash.slice(1));
  if (fromLink) sessionStorage.setItem(KEPT, fromLink);
  history.replaceState(null, "", location.pathname);
  api.token = fromLink || sessionStorage.getItem(KEPT) || "";
  refresh(true);
  setInterval(() => api.token && document.visibilityState === "visible" && refresh(), REFRESH_MS);
}

start();
