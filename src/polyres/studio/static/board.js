// The board of one song: its results side by side, one strip per stem, one transport for all.

import { h, icon } from "./dom.js";
import { draw, spectrogram } from "./pictures.js";
import { Player } from "./player.js";
import { clock } from "./times.js";

const COLOURS = {
  drums: "#d98a4e", bass: "#6f8fd6", vocals: "#d4708f", other: "#4fa89b", original: "#8d939c", mixture: "#8d939c",
  codec: "#4fa89b", enhanced: "#d4708f", difference: "#d98a4e",
};
const SPARE = ["#4fa89b", "#d98a4e", "#6f8fd6", "#d4708f", "#a58bd0", "#8fae4e"];
const LABELS = ["A", "B", "C", "D", "E", "F"];
const WHOLES = new Set(["original", "mixture"]);

/** Where the strips start: versions one at a time; stems all together, without the original. */
export class Board {
  /** @param {{title: string, rate: number, links?: (result) => Node[]}} song */
  constructor(song) {
    this.song = song;
    this.context = new AudioContext({ sampleRate: song.rate, latencyHint: "interactive" });
    this.player = new Player(this.context, () => this.refresh());
    this.results = [];
    this.views = [];
    this.strips = new Map(); // stem -> {level_db, pan, mute, solo}
    this.element = h("section.board", { "aria-label": song.title });
    this.frame = null;
    this.watch = new ResizeObserver(() => this.paint());
    this.watch.observe(this.element);
  }

  /** @param {{id, label, kind, lanes: string[], views, audio: (name) => Promise<ArrayBuffer>}} result */
  async add(result) {
    const buffers = new Map();
    for (const name of result.lanes) {
      buffers.set(name, await this.context.decodeAudioData(await result.audio(name)));
    }
    result.pictures = new Map(result.lanes.map((name) => [name, spectrogram(result.views[name])]));
    this.player.add(result.id, buffers);
    this.results.push(result);
    for (const name of result.lanes) {
      if (!this.strips.has(name)) {
        this.strips.set(name, { level: 0, pan: 0, mute: WHOLES.has(name) && result.kind === "separate", solo: false });
      }
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

  /** What sounds of a result: name to {gain, pan, level}. */
  mixOf(result) {
    const mix = new Map();
    const solos = result.lanes.filter((name) => this.strips.get(name).solo);
    for (const name of result.lanes) {
      const strip = this.strips.get(name);
      const alone = this.exclusive(result) ? (solos[0] ?? result.lanes[0]) === name : !solos.length || solos.includes(name);
      const on = alone && (!strip.mute || strip.solo || this.exclusive(result)) && strip.level > -40;
      mix.set(name, { gain: on ? 10 ** (strip.level / 20) : 0, pan: strip.pan, level: strip.level, on });
    }
    return mix;
  }

  names() {
    return [...new Set(this.results.flatMap((result) => result.lanes))].sort((a, b) => WHOLES.has(a) - WHOLES.has(b));
  }

  build() {
    const focused = document.activeElement?.id;
    const { player } = this;
    this.playButton = h("button.play", { type: "button", id: "play", onclick: () => player.toggle() });
    this.time = h("span.time", {}, "0:00");
    this.clearLoop = h("button.quiet", { type: "button", onclick: () => player.loop(null) }, "End loop");
    this.switches = this.results.map((result, number) =>
      h(
        "button.version",
        { type: "button", id: `version-${number}`, onclick: () => player.choose(result.id) },
        h("b", {}, LABELS[number] ?? String(number + 1)),
        h("span", {}, result.label),
      ),
    );
    this.seeker = h("input.seeker", {
      type: "range", min: 0, max: player.duration, step: "any", value: player.position, "aria-label": "Position",
      oninput: (event) => player.seek(Number(event.target.value)),
    });
    this.links = h("div.links");
    this.views = [];
    const rows = this.names().map((name, number) => this.row(name, number));
    this.element.replaceChildren(
      h(
        "div.transport",
        {},
        h("button.round", { type: "button", "aria-label": "To the start", onclick: () => player.seek(player.bounds[0]) }, icon("start")),
        this.playButton,
        h("div.where", {}, this.time, this.clearLoop, h("span.hint", {}, "Drag over a picture to loop")),
        h("div.versions", { role: "group", "aria-label": "Results" }, this.switches),
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
    const strip = this.strips.get(name);
    const colour = COLOURS[name] ?? SPARE[number % SPARE.length];
    const change = (values) => {
      Object.assign(strip, values);
      this.refresh();
    };
    const solo = h("button.toggle.solo", { type: "button", id: `solo-${name}`, "aria-label": `Solo ${name}` }, "Solo");
    solo.addEventListener("click", () => {
      if (this.active && this.exclusive(this.active)) for (const one of this.strips.values()) one.solo = false;
      change({ solo: this.active && this.exclusive(this.active) ? true : !strip.solo });
    });
    const mute = h(
      "button.toggle.mute",
      { type: "button", id: `mute-${name}`, "aria-label": `Mute ${name}`, onclick: () => change({ mute: !strip.mute }) },
      "Mute",
    );
    const level = h("input", {
      type: "range", min: -40, max: 6, step: 0.5, value: strip.level, id: `level-${name}`, "aria-label": `Level of ${name}`,
      oninput: (event) => change({ level: Number(event.target.value) }),
    });
    const pan = h("input", {
      type: "range", min: -1, max: 1, step: 0.05, value: strip.pan, id: `pan-${name}`, "aria-label": `Pan of ${name}`,
      oninput: (event) => change({ pan: Number(event.target.value) }),
    });
    level.addEventListener("dblclick", () => { level.value = 0; change({ level: 0 }); });
    pan.addEventListener("dblclick", () => { pan.value = 0; change({ pan: 0 }); });
    const row = h(
      "div.row",
      { role: "group", "aria-label": name },
      h(
        "div.strip",
        {},
        h("strong.stem", {}, name),
        h("div.toggles", {}, solo, mute),
        h("label.slider", {}, h("span", {}, "Level"), level, h("output", {})),
        h("label.slider", {}, h("span", {}, "Pan"), pan, h("output", {})),
      ),
      h("div.views", {}, this.results.filter((one) => one.lanes.includes(name)).map((one) => this.view(one, name, colour))),
    );
    row.style.setProperty("--stem", colour);
    row.parts = { name, solo, mute, level, pan };
    return row;
  }

  view(result, name, colour) {
    const canvas = h("canvas", { role: "img", "aria-label": `${name} of ${result.label}: waveform and spectrogram` });
    const region = h("div.region");
    const head = h("div.playhead");
    const place = h("div.view", { "data-result": result.id }, canvas, region, head);
    if (this.results.length > 1) place.append(h("span.tag", {}, LABELS[this.results.indexOf(result)]));
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
    this.playButton.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    this.clearLoop.hidden = !player.region;
    this.switches.forEach((button, number) =>
      button.setAttribute("aria-pressed", String(this.results[number] === active)),
    );
    for (const row of this.element.querySelectorAll(".row")) {
      const { name, solo, mute, level, pan } = row.parts;
      const strip = this.strips.get(name);
      const alone = this.exclusive(active);
      const on = mix.get(name)?.on ?? false;
      solo.textContent = alone ? "Hear" : "Solo";
      solo.setAttribute("aria-label", `${alone ? "Hear" : "Solo"} ${name}`);
      solo.setAttribute("aria-pressed", String(alone ? on : strip.solo));
      mute.hidden = alone;
      mute.setAttribute("aria-pressed", String(strip.mute));
      level.nextElementSibling.textContent = strip.level <= -40 ? "off" : `${strip.level > 0 ? "+" : ""}${strip.level} dB`;
      const side = Math.round(Math.abs(strip.pan) * 100);
      pan.nextElementSibling.textContent = side ? `${strip.pan < 0 ? "L" : "R"} ${side}` : "mid";
      row.classList.toggle("silent", !on);
      row.hidden = !active.lanes.includes(name);
    }
    for (const { result, place } of this.views) place.classList.toggle("aside", result !== active);
    this.links.replaceChildren(...(this.song.links?.(active, mix, player.region) ?? []));
    this.mark(player.region);
    this.tick();
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
    if (event.target.closest("input, button, select, a, textarea") && event.key !== "Home") return;
    if (event.key === " ") this.player.toggle();
    else if (event.key === "Home") this.player.seek(this.player.bounds[0]);
    else if (event.key === "ArrowLeft") this.player.seek(this.player.position - 2);
    else if (event.key === "ArrowRight") this.player.seek(this.player.position + 2);
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
