// The board of one song: its results side by side, one strip per stem, one transport for all.

import { h, icon } from "./dom.js";
import { draw, spectrogram } from "./pictures.js";
import { Player } from "./player.js";
import { clock } from "./times.js";
import { stemName, tr } from "./words.js";

const COLOURS = {
  drums: "#d98a4e", bass: "#6f8fd6", vocals: "#d4708f", other: "#4fa89b", original: "#8d939c", mixture: "#8d939c",
  codec: "#4fa89b", enhanced: "#d4708f", difference: "#d98a4e",
};
const SPARE = ["#4fa89b", "#d98a4e", "#6f8fd6", "#d4708f", "#a58bd0", "#8fae4e"];
const LABELS = ["A", "B", "C", "D", "E", "F"];
const WHOLES = new Set(["original", "mixture"]);
const OFF_DB = -40;
let boards = 0;

/** Where the strips start: versions one at a time; stems all together, without the original. */
export class Board {
  /** @param {{title: string, rate: number, links?: (result) => Node[]}} song */
  constructor(song) {
    this.song = song;
    this.number = boards++; // ids of elements differ from board to board
    this.context = new AudioContext({ sampleRate: song.rate, latencyHint: "interactive" });
    this.player = new Player(this.context, () => this.refresh());
    this.results = [];
    this.views = [];
    this.strips = new Map(); // kind and stem -> {level, pan, mute, solo}
    this.element = h("section.board", { "aria-label": song.title });
    this.frame = null;
    this.watch = new ResizeObserver(() => this.paint());
    this.watch.observe(this.element);
  }

  /** @param {{id, label, kind, gain, lanes: string[], views, sdr, audio: (name) => Promise<ArrayBuffer>}} result */
  async add(result) {
    const buffers = new Map();
    for (const name of result.lanes) {
      buffers.set(name, await this.context.decodeAudioData(await result.audio(name)));
    }
    result.pictures = new Map(result.lanes.map((name) => [name, spectrogram(result.views[name])]));
    this.player.add(result.id, buffers);
    this.results.push(result);
    for (const name of result.lanes) {
      const key = `${result.kind} ${name}`;
      if (!this.strips.has(key)) this.strips.set(key, { level: 0, pan: 0, mute: WHOLES.has(name), solo: false });
    }
    if (!this.player.active) this.player.choose(result.id);
    this.build();
  }

  get active() {
    return this.results.find((result) => result.id === this.player.active);
  }

  /** Whether only one lane sounds at a time: versions of the same sound are compared, not mixed. */
  exclusive(result) {
    return result.kind === "reconstruct";
  }

  /** The settings of a lane; separations share theirs, and so do reconstructions. */
  strip(name, result = this.active) {
    return this.strips.get(`${result.kind} ${name}`);
  }

  /** What sounds of a result: name to {gain, pan, level, on}. */
  mixOf(result) {
    const mix = new Map();
    // Results that were turned down against clipping are met by the others, so that the louder one does not win.
    const fair = Math.min(...this.results.map((one) => one.gain)) / result.gain;
    const solos = result.lanes.filter((name) => this.strip(name, result).solo);
    for (const name of result.lanes) {
      const strip = this.strip(name, result);
      const alone = this.exclusive(result) ? (solos[0] ?? result.lanes[0]) === name : !solos.length || solos.includes(name);
      const on = alone && (!strip.mute || strip.solo || this.exclusive(result)) && strip.level > OFF_DB;
      mix.set(name, { gain: on ? fair * 10 ** (strip.level / 20) : 0, pan: strip.pan, level: strip.level, on });
    }
    return mix;
  }

  label(result) {
    return result.truth ? tr("truth") : result.label;
  }

  id(name) {
    return `board-${this.number}-${name}`;
  }

  names() {
    return [...new Set(this.results.flatMap((result) => result.lanes))].sort((a, b) => WHOLES.has(a) - WHOLES.has(b));
  }

  build() {
    const focused = document.activeElement?.id;
    const { player } = this;
    this.playButton = h("button.play", { type: "button", id: this.id("play"), onclick: () => player.toggle() });
    this.time = h("span.time", {}, "0:00");
    this.clearLoop = h("button.quiet", { type: "button", onclick: () => player.loop(null) }, tr("end_loop"));
    this.switches = this.results.map((result, number) =>
      h(
        "button.version",
        { type: "button", id: this.id(`version-${number}`), onclick: () => player.choose(result.id) },
        h("b", {}, LABELS[number] ?? String(number + 1)),
        h("span", {}, this.label(result)),
      ),
    );
    this.seeker = h("input.seeker", {
      type: "range", min: 0, max: player.duration, step: "any", value: player.position, "aria-label": tr("position"),
      oninput: (event) => player.seek(Number(event.target.value)),
    });
    this.links = h("div.links");
    this.views = [];
    const rows = this.names().map((name, number) => this.row(name, number));
    this.element.replaceChildren(
      h(
        "div.transport",
        {},
        h("button.round", { type: "button", id: this.id("start"), "aria-label": tr("to_start"), onclick: () => player.seek(player.bounds[0]) }, icon("start")),
        this.playButton,
        h("div.where", {}, this.time, this.clearLoop, h("span.hint", {}, tr("loop_hint"))),
        h("div.versions", { role: "group", "aria-label": tr("results") }, this.switches),
      ),
      this.seeker,
      h("div.rows", { "data-results": this.results.length }, rows),
      this.links,
    );
    if (focused) document.getElementById(focused)?.focus();
    this.refresh();
    requestAnimationFrame(() => this.paint());
  }

  row(name, number) {
    const colour = COLOURS[name] ?? SPARE[number % SPARE.length];
    const stem = stemName(name);
    const change = (values) => {
      Object.assign(this.strip(name), values);
      this.refresh();
    };
    const toggle = (kind, onclick) => h(`button.toggle.${kind}`, { type: "button", id: this.id(`${kind}-${name}`), onclick });
    const solo = toggle("solo", () => {
      const alone = this.exclusive(this.active);
      if (alone) for (const other of this.active.lanes) this.strip(other).solo = false;
      change({ solo: alone || !this.strip(name).solo });
    });
    const mute = toggle("mute", () => change({ mute: !this.strip(name).mute }));
    mute.append(tr("mute"));
    mute.setAttribute("aria-label", tr("mute_of", { stem }));
    const slider = (kind, range) => {
      const input = h("input", {
        type: "range", ...range, id: this.id(`${kind}-${name}`), "aria-label": tr(`${kind}_of`, { stem }),
        oninput: () => change({ [kind]: Number(input.value) }),
        ondblclick: () => change({ [kind]: 0 }),
      });
      return input;
    };
    const level = slider("level", { min: OFF_DB, max: 6, step: 0.5 });
    const pan = slider("pan", { min: -1, max: 1, step: 0.05 });
    const row = h(
      "div.row",
      { role: "group", "aria-label": stem },
      h(
        "div.strip",
        {},
        h("strong.stem", {}, stem),
        h("div.toggles", {}, solo, mute),
        h("label.slider", {}, h("span", {}, tr("level")), level, h("output", {})),
        h("label.slider", {}, h("span", {}, tr("pan")), pan, h("output", {})),
      ),
      h("div.views", {}, this.results.filter((one) => one.lanes.includes(name)).map((one) => this.view(one, name, colour))),
    );
    row.style.setProperty("--stem", colour);
    row.parts = { name, stem, solo, mute, level, pan };
    return row;
  }

  view(result, name, colour) {
    const canvas = h("canvas", { role: "img", "aria-label": tr("picture_of", { stem: stemName(name), label: this.label(result) }) });
    const region = h("div.region");
    const head = h("div.playhead");
    const place = h("div.view", { "data-result": result.id }, canvas, region, head);
    const sdr = result.sdr?.[name];
    const figure = typeof sdr === "number" ? h("span", { title: tr("sdr_hint") }, tr("sdr", { value: sdr.toFixed(1) })) : null;
    if (this.results.length > 1) place.append(h("div.tag", {}, LABELS[this.results.indexOf(result)] ?? "", figure));
    const seconds = (event) => {
      const box = canvas.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * this.player.duration;
    };
    let from = null;
    place.addEventListener("pointerdown", (event) => {
      from = { x: event.clientX, at: seconds(event) };
      place.setPointerCapture(event.pointerId);
    });
    place.addEventListener("pointermove", (event) => {
      if (!from || Math.abs(event.clientX - from.x) <= 6) return;
      const ends = [from.at, seconds(event)].sort((a, b) => a - b);
      this.mark(ends);
    });
    place.addEventListener("pointerup", (event) => {
      if (!from) return;
      this.player.choose(result.id);
      if (Math.abs(event.clientX - from.x) > 6) this.player.loop(from.at, seconds(event));
      else this.player.seek(from.at);
      from = null;
    });
    place.addEventListener("pointercancel", () => { from = null; this.mark(this.player.region); });
    this.views.push({ result, name, colour, canvas, region, head, place });
    return place;
  }

  /** Show the state of everything, and let it be heard. */
  refresh() {
    const { player } = this;
    for (const result of this.results) player.setMix(result.id, this.mixOf(result));
    const { active } = this;
    if (!active || !this.playButton) return;
    const mix = this.mixOf(active);
    this.playButton.replaceChildren(icon(player.playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", tr(player.playing ? "pause" : "play"));
    this.clearLoop.hidden = !player.region;
    this.switches.forEach((button, number) =>
      button.setAttribute("aria-pressed", String(this.results[number] === active)),
    );
    for (const row of this.element.querySelectorAll(".row")) {
      row.hidden = !active.lanes.includes(row.parts.name);
      if (!row.hidden) this.refreshRow(row, mix.get(row.parts.name).on);
    }
    // Stems and versions are not compared, so that all pictures on view are of one width and one time.
    for (const { result, place } of this.views) {
      place.classList.toggle("aside", result !== active);
      place.hidden = result.kind !== active.kind;
    }
    if (this.shown !== active.kind) requestAnimationFrame(() => this.paint());
    this.shown = active.kind;
    this.links.replaceChildren(...(this.song.links?.(active, mix, player.region) ?? []));
    this.mark(player.region);
    this.tick();
  }

  refreshRow(row, on) {
    const { name, stem, solo, mute, level, pan } = row.parts;
    const strip = this.strip(name);
    const alone = this.exclusive(this.active);
    solo.textContent = tr(alone ? "hear" : "solo");
    solo.setAttribute("aria-label", tr(alone ? "hear_of" : "solo_of", { stem }));
    solo.setAttribute("aria-pressed", String(alone ? on : strip.solo));
    mute.hidden = alone;
    mute.setAttribute("aria-pressed", String(strip.mute));
    const percent = Math.round(Math.abs(strip.pan) * 100);
    const side = percent ? tr(strip.pan < 0 ? "left" : "right", { percent }) : tr("middle");
    const loud = strip.level <= OFF_DB ? tr("off") : `${strip.level > 0 ? "+" : ""}${strip.level} dB`;
    for (const [input, value, text] of [[level, strip.level, loud], [pan, strip.pan, side]]) {
      if (Number(input.value) !== value) input.value = value;
      input.setAttribute("aria-valuetext", text);
      input.nextElementSibling.textContent = text;
    }
    row.classList.toggle("silent", !on);
  }

  /** Show a part as the one that loops. */
  mark(ends) {
    const share = (seconds) => `${(100 * seconds) / Math.max(this.player.duration, 1e-3)}%`;
    for (const { region } of this.views) {
      region.hidden = !ends;
      if (!ends) continue;
      region.style.left = share(ends[0]);
      region.style.width = share(ends[1] - ends[0]);
    }
  }

  tick() {
    cancelAnimationFrame(this.frame);
    const { player } = this;
    const { position } = player;
    this.time.textContent = `${clock(position)} / ${clock(player.duration)}`;
    if (document.activeElement !== this.seeker || player.playing) this.seeker.value = position;
    this.seeker.setAttribute("aria-valuetext", clock(position));
    const share = (seconds) => `${(100 * seconds) / Math.max(player.duration, 1e-3)}%`;
    for (const { head } of this.views) head.style.left = share(position);
    if (player.playing) this.frame = requestAnimationFrame(() => this.tick());
  }

  paint() {
    const peaks = this.results.flatMap((result) => Object.values(result.views).map((view) => view.peak));
    const scale = 1 / Math.max(0.05, ...peaks);
    for (const { result, name, colour, canvas } of this.views) {
      if (canvas.clientWidth) draw(canvas, result.views[name], result.pictures.get(name), colour, scale);
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, select, textarea")) return;
    if (event.key === " " && event.target.closest?.("button, a")) return;
    const [from, until] = this.player.bounds;
    if (event.key === " ") this.player.toggle();
    else if (event.key === "Home") this.player.seek(this.player.bounds[0]);
    else if (event.key === "ArrowLeft") this.player.seek(this.player.position - 2);
    else if (event.key === "ArrowRight") this.player.seek(this.player.position + 2);
    else if (event.key === "[") this.player.loop(this.player.position, until);
    else if (event.key === "]") this.player.loop(from, this.player.position);
    else if (/^[1-9]$/.test(event.key)) this.player.choose(this.results[Number(event.key) - 1]?.id);
    else return;
    event.preventDefault();
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.watch.disconnect();
    this.player.close();
    this.context.close();
  }
}
