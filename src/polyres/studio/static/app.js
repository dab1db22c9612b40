// The page: songs come in, jobs go on, boards open.

import { Board } from "./board.js";
import { h, icon } from "./dom.js";
import { about, clock } from "./times.js";

const BASE = new URL("api/", document.baseURI);
const POLL_MS = 500;
const $ = (id) => document.getElementById(id);

/** Who this is, so that one visitor does not see another's songs. */
function visitor() {
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");
  try {
    const kept = sessionStorage.getItem("polyres-visitor") ?? fresh();
    sessionStorage.setItem("polyres-visitor", kept);
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
    throw new Error("the studio cannot be reached; is it still running?");
  }
  if (answer.ok) return answer;
  throw new Error((await answer.json().catch(() => ({}))).detail ?? answer.statusText);
}

const cards = new Map(); // song id -> card
let facts = null;
let chosen = null;
let sounding = null;
let timer = null;

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
      else reject(new Error(answer.detail ?? `${file.name} was not taken (${request.status})`));
    };
    request.onerror = () => reject(new Error(`${file.name} could not be sent; is the studio still running?`));
    request.send(file);
  });
}

async function take(files) {
  await ready; // a song may be dropped while the page still loads
  problem("");
  const problems = [];
  for (const file of files) {
    try {
      if (file.size > facts.max_upload_bytes) throw new Error(`${file.name} is larger than ${Math.round(facts.max_upload_bytes / 2 ** 20)} MiB`);
      const song = await upload(file, (share) => { $("status").textContent = `Sending ${file.name}: ${Math.round(100 * share)} %`; });
      await call("POST", `songs/${song.id}/works`, { choice: chosen ?? facts.choices[0].id });
      await poll();
    } catch (error) {
      problems.push(error.message);
    }
  }
  $("status").textContent = "";
  problem(problems.join(" · "));
  await poll();
}

async function poll() {
  clearTimeout(timer);
  let busy = false;
  try {
    const songs = await (await call("GET", "songs")).json();
    document.body.classList.toggle("empty", songs.length === 0);
    for (const [id, card] of cards) if (!songs.some((song) => song.id === id)) card.close();
    for (const song of songs) {
      if (!cards.has(song.id)) cards.set(song.id, new Card(song));
      cards.get(song.id).update(song);
    }
    busy = songs.some((song) => song.works.some((work) => work.state === "queued" || work.state === "working"));
  } catch (error) {
    problem(error.message);
    busy = true;
  }
  timer = setTimeout(poll, busy ? POLL_MS : 30 * POLL_MS);
}

class Card {
  constructor(song) {
    this.song = song;
    this.board = null;
    this.known = new Set();
    this.opening = Promise.resolve();
    this.select = h(
      "select",
      { "aria-label": `Model for ${song.name}`, onchange: () => { chosen = this.select.value; } },
      [["separate", "Separate"], ["reconstruct", "Reconstruct"]].map(([kind, label]) =>
        h("optgroup", { label }, facts.choices.filter((one) => one.kind === kind).map((one) => h("option", { value: one.id }, one.label))),
      ),
    );
    const go = h("button.second", { type: "button", onclick: () => attempt(() => this.ask()) }, "Add result");
    const close = h("button.bare", { type: "button", "aria-label": `Remove ${song.name}`, onclick: () => attempt(() => this.remove()) }, icon("close"));
    this.jobs = h("div.jobs");
    this.place = h("div");
    this.element = h(
      "article.song",
      { "aria-label": song.name },
      h("div.song-head", {}, h("h2", {}, song.name, h("small", {}, clock(song.seconds))), h("div.again", {}, this.select, go, close)),
      this.jobs,
      this.place,
    );
    $("songs").prepend(this.element);
  }

  async ask() {
    problem("");
    await call("POST", `songs/${this.song.id}/works`, { choice: this.select.value });
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
    this.jobs.replaceChildren(...song.works.map((work) => this.job(work)).filter(Boolean));
    for (const work of song.works) {
      if (work.state !== "done" || this.known.has(work.id)) continue;
      this.known.add(work.id);
      this.opening = this.opening.then(() => attempt(() => this.open(work)));
    }
  }

  job(work) {
    const end = (label) => h("button.quiet", { type: "button", onclick: () => attempt(async () => { await call("DELETE", `works/${work.id}`); await poll(); }) }, label);
    if (work.state === "failed") return h("div.job.failed", {}, h("b", {}, work.label), h("span", {}, work.error), end("Dismiss"));
    if (work.state === "done") return work.warnings.length ? h("p.note", {}, `${work.label}: ${work.warnings.join("; ")}`) : null;
    if (work.state === "cancelled") return null;
    const left = work.state === "queued" ? (work.ahead ? `${work.ahead} before it` : "waiting") : work.left_s === null ? "starting" : about(work.left_s);
    return h(
      "div.job",
      {},
      h("b", {}, work.label),
      h("progress", { max: 1, value: work.share, "aria-label": `${work.label} of ${this.song.name}` }),
      h("span.left", {}, left),
      end("Cancel"),
    );
  }

  async open(work) {
    const loading = h("p.hint", {}, "Loading the sounds…");
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
      await this.board.add({ id: work.id, label: work.label, kind: work.kind, lanes: work.lanes, views, audio });
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
      strips.length ? h("a.second", { href: mixed.href, download: "" }, icon("drop"), region ? "Mix of the loop (wav)" : "Mix (wav)") : null,
      h("a.second", { href: new URL(`works/${result.id}/stems.zip`, BASE).href, download: "" }, icon("drop"), "All stems (zip)"),
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

const ready = attempt(async () => {
  facts = await (await call("GET", "studio")).json();
  $("limits").textContent = `up to ${Math.round(facts.max_upload_bytes / 2 ** 20)} MiB and ${facts.max_minutes} minutes each`;
  $("drop").hidden = false;
  await poll();
});
