// The page: songs come in, jobs go on, boards open.

import { Board } from "./board.js";
import { h, icon } from "./dom.js";
import { about, clock } from "./times.js";
import { languageSwitch, tr } from "./words.js";

const BASE = new URL("api/", document.baseURI);
const POLL_MS = 500;
const $ = (id) => document.getElementById(id);

/** Who this is, so that one visitor does not see another's songs. */
function visitor() {
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
  try {
    const kept = localStorage.getItem("polyres-visitor") ?? fresh();
    localStorage.setItem("polyres-visitor", kept);
    return kept;
  } catch {
    return fresh();
  }
}

const HEADERS = { "x-studio-visitor": visitor() };

async function call(method, path, body) {
  const headers = body === undefined ? HEADERS : { ...HEADERS, "content-type": "application/json" };
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error(tr("unreachable"));
  }
  if (answer.ok) return answer;
  throw new Error((await answer.json().catch(() => ({}))).detail ?? answer.statusText);
}

const cards = new Map(); // song id -> card
let facts = null;
let sounding = null;
let timer = null;
let lost = false; // whether the studio did not answer

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

/** Run something; what goes wrong is shown in one line. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    problem(error.message);
  }
}

function upload(file, told) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much was sent
    const url = new URL("songs", BASE);
    url.searchParams.set("name", file.name);
    request.open("POST", url);
    for (const [name, value] of Object.entries(HEADERS)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => told(event.loaded / Math.max(event.total, 1));
    request.onload = () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // not every proxy answers in JSON
      }
      if (request.status === 201) resolve(answer);
      else reject(new Error(answer.detail ?? tr("not_taken", { name: file.name, status: request.status })));
    };
    request.onerror = () => reject(new Error(tr("not_sent", { name: file.name })));
    request.send(file);
  });
}

async function take(files) {
  await ready; // a song may be dropped while the page still loads
  if (!facts) return;
  problem(files.length ? "" : tr("no_songs"));
  const problems = [];
  for (const file of files) {
    try {
      if (file.size > facts.max_upload_bytes) throw new Error(tr("too_large", { name: file.name, size: limitMiB() }));
      const song = await upload(file, (share) => { $("status").textContent = tr("sending", { name: file.name, percent: Math.round(100 * share) }); });
      await call("POST", `songs/${song.id}/works`, { choice: $("choice").value });
      await poll();
    } catch (error) {
      problems.push(error.message);
    }
  }
  $("status").textContent = "";
  if (problems.length) problem(problems.join(" · "));
  await poll();
}

async function poll() {
  clearTimeout(timer);
  let busy = false;
  try {
    const songs = await (await call("GET", "songs")).json();
    if (lost) problem("");
    lost = false;
    document.body.classList.toggle("empty", songs.length === 0);
    for (const [id, card] of cards) if (!songs.some((song) => song.id === id)) card.close();
    for (const song of songs) {
      if (!cards.has(song.id)) cards.set(song.id, new Card(song));
      cards.get(song.id).update(song);
    }
    busy = songs.some((song) => song.works.some((work) => work.state === "queued" || work.state === "working"));
  } catch (error) {
    problem(error.message);
    lost = true;
    busy = true;
  }
  timer = setTimeout(poll, busy ? POLL_MS : 30 * POLL_MS);
}

/** What can be asked for, separations and reconstructions apart. */
function groups() {
  return ["separate", "reconstruct"].map((kind) =>
    h("optgroup", { label: tr(kind) }, facts.choices.filter((one) => one.kind === kind).map((one) => h("option", { value: one.id }, one.label))),
  );
}

class Card {
  constructor(song) {
    this.song = song;
    this.board = null;
    this.known = new Set();
    this.lines = new Map(); // job and state -> element
    this.opening = Promise.resolve();
    this.head = h("div.song-head");
    this.jobs = h("div.jobs");
    this.place = h("div");
    this.element = h("article.song", { "aria-label": song.name }, this.head, this.jobs, this.place);
    this.say();
    $("songs").prepend(this.element);
  }

  /** Say everything in the language of now. */
  say() {
    const { name } = this.song;
    const before = this.select?.value ?? $("choice").value;
    this.select = h("select", { "aria-label": tr("model_for", { name }) }, groups());
    this.select.value = before;
    const go = h("button.second", { type: "button", onclick: () => attempt(() => this.ask()) }, tr("add_result"));
    const close = h("button.bare", { type: "button", "aria-label": tr("remove", { name }), onclick: () => attempt(() => this.remove()) }, icon("close"));
    this.head.replaceChildren(h("h2", {}, name, h("small", {}, clock(this.song.seconds))), h("div.again", {}, this.select, go, close));
    this.board?.build();
    this.lines.clear();
    this.update(this.song);
  }

  async ask() {
    problem("");
    const { id } = await (await call("POST", `songs/${this.song.id}/works`, { choice: this.select.value })).json();
    this.board?.player.choose(id); // where it is there already
    await poll();
  }

  async remove() {
    await call("DELETE", `songs/${this.song.id}`);
    this.close();
    await poll();
  }

  close() {
    cards.delete(this.song.id);
    if (sounding === this.board) sounding = null;
    this.board?.close();
    this.element.remove();
  }

  update(song) {
    this.song = song;
    const shown = song.works.map((work) => this.job(work)).filter(Boolean);
    // Elements that stay are not touched, so that a button under a finger or in focus stays there.
    for (const element of [...this.jobs.children]) if (!shown.includes(element)) element.remove();
    for (const element of shown) if (!element.parentNode) this.jobs.append(element);
    for (const work of song.works) {
      if (work.state !== "done" || this.known.has(work.id)) continue;
      this.known.add(work.id);
      this.opening = this.opening.then(() => attempt(() => this.open(work)));
    }
  }

  /** The line of a job: one element as long as its state is the same. */
  job(work) {
    const key = `${work.id} ${["queued", "working"].includes(work.state) ? "active" : work.state}`;
    if (!this.lines.has(key)) this.lines.set(key, this.line(work));
    const line = this.lines.get(key);
    const bar = line?.querySelector("progress");
    if (bar) {
      const waits = work.ahead ? tr("before_it", { count: work.ahead }) : tr("waiting");
      const left = work.left_s === null ? tr("starting") : about(work.left_s);
      bar.value = work.share;
      line.querySelector(".left").textContent = work.state === "queued" ? waits : left;
    }
    return line;
  }

  line(work) {
    const end = (label) => h("button.quiet", { type: "button", "aria-label": `${label}: ${work.label}`, onclick: () => attempt(() => this.end(work)) }, label);
    if (work.state === "failed") return h("div.job.failed", {}, h("b", {}, work.label), h("span", { role: "alert" }, work.error), end(tr("dismiss")));
    if (work.state === "done") return work.warnings.length ? h("p.note", {}, `${work.label}: ${work.warnings.join("; ")}`) : null;
    if (work.state === "cancelled") return null;
    const label = tr("progress_of", { label: work.label, name: this.song.name });
    return h("div.job", {}, h("b", {}, work.label), h("progress", { max: 1, value: 0, "aria-label": label }), h("span.left"), end(tr("cancel")));
  }

  async end(work) {
    await call("DELETE", `works/${work.id}`);
    await poll();
  }

  async open(work) {
    const loading = h("p.hint", {}, tr("loading"));
    this.place.append(loading);
    try {
      const views = await (await call("GET", `works/${work.id}/views`)).json();
      if (!this.board) {
        this.board = new Board({ title: this.song.name, rate: work.rate_hz, links: (result, mix, region) => this.links(result, mix, region) });
        this.board.element.addEventListener("pointerdown", () => this.listen(), true);
        this.board.element.addEventListener("keydown", () => this.listen(), true);
        this.place.append(this.board.element);
      }
      sounding ??= this.board;
      const audio = async (name) => (await call("GET", `works/${work.id}/audio/${encodeURIComponent(name)}`)).arrayBuffer();
      await this.board.add({ ...work, views, audio });
    } catch (error) {
      throw new Error(tr("no_sound", { reason: error.message }));
    } finally {
      loading.remove();
    }
  }

  /** Only one song sounds at a time. */
  listen() {
    if (sounding && sounding !== this.board) sounding.player.pause();
    sounding = this.board;
  }

  links(result, mix, region) {
    const strips = [...mix].filter(([, one]) => one.on).map(([name, one]) => `${name}:${one.level}:${one.pan}`);
    const mixed = new URL(`works/${result.id}/mix.wav`, BASE);
    mixed.searchParams.set("strips", strips.join(","));
    if (region) {
      mixed.searchParams.set("start_s", region[0]);
      mixed.searchParams.set("end_s", region[1]);
    }
    return [
      strips.length ? h("a.second", { href: mixed.href, download: "" }, icon("drop"), region ? tr("mix_loop") : tr("mix")) : null,
      h("a.second", { href: new URL(`works/${result.id}/stems.zip`, BASE).href, download: "" }, icon("drop"), tr(result.kind === "separate" ? "all_stems" : "all_versions")),
    ].filter(Boolean);
  }
}

/** All files of what was dropped, folders too. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const one of some) await walk(one);
    }
  };
  for (const entry of entries) await walk(entry);
  return files.length > 1 ? songsOf(files) : files;
}

/** Of a folder only what looks like audio. */
function songsOf(files) {
  return [...files].filter((file) => /^(audio|video)\//.test(file.type) || /\.(aiff?|flac|m4a|opus|wv|ape|caf)$/i.test(file.name));
}

document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  attempt(async () => take(await dropped(event.dataTransfer)));
});
document.addEventListener("keydown", (event) => sounding?.key(event));
for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", (event) => {
    const files = id === "folder" ? songsOf(event.target.files) : [...event.target.files];
    attempt(() => take(files)).then(() => { event.target.value = ""; });
  });
}

function limitMiB() {
  return Number((facts.max_upload_bytes / 2 ** 20).toPrecision(3));
}

/** What is not in the cards, in the language of now. */
function say() {
  if (!facts) return;
  $("limits").textContent = tr("limits", { size: limitMiB(), minutes: facts.max_minutes });
  const before = $("choice").value || facts.choices[0].id;
  $("choice").replaceChildren(...groups());
  $("choice").value = before;
  $("choice").setAttribute("aria-label", tr("model_first"));
  $("choice").hidden = facts.choices.length < 2;
  for (const card of cards.values()) card.say();
}

languageSwitch($("language"), say);

const ready = attempt(async () => {
  facts = await (await call("GET", "studio")).json();
  say();
  $("drop").hidden = false;
  await poll();
});
