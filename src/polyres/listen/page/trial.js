// One trial: sounds, answers, keyboard, and what must be done before the next.

import { h, icon } from "./dom.js";
import { Player } from "./engine.js";
import { tr } from "./i18n.js";
import { pairChoice, sliderBoard, stepBoard, steps } from "./scales.js";
import { announce, paragraphs } from "./screens.js";
import { audioContext, soundNames } from "./sounds.js";
import { Timeline } from "./timeline.js";

const HEARD_S = 1;
const TICK_MS = 100;
const EVENTS_AT_ONCE = 100;

const PAIRS = ["abx", "ab"];
const SLIDERS = ["mushra", "bs2132", "bs1116"];
const ROWS = [...SLIDERS, "likert"];

export class Trial {
  /**
   * @param study of the server @param plan of this trial @param buffers name -> AudioBuffer @param {Outbox} outbox
   * @param known ratings already given to this trial @param next called when the listener goes on
   */
  constructor({ study, plan, buffers, outbox, known, next }) {
    Object.assign(this, { study, plan, outbox, next });
    this.values = new Map(known.map((rating) => [`${rating.slot ?? ""} ${rating.attribute}`, rating]));
    this.names = soundNames(plan, study.kind);
    this.startedAt = known.find((rating) => rating.started_at)?.started_at || new Date().toISOString();
    this.heard = new Map(this.names.map((name) => [name, 0]));
    this.plays = new Map(this.names.map((name) => [name, 0]));
    this.switches = Math.max(0, ...known.map((rating) => rating.switches ?? 0));
    for (const { slot, plays } of known) this.recall(slot, plays ?? 0);
    this.events = [];
    this.buttons = new Map();
    this.context = audioContext(study.sample_rate_hz);
    const shown = buffers.get("reference") ?? null;
    this.player = new Player(this.context, buffers, (what) => this.changed(what), study.playback);
    this.timeline = new Timeline(this.player, shown);
    this.element = this.build();
    this.onkey = (event) => this.key(event);
    document.addEventListener("keydown", this.onkey);
    this.tick = setInterval(() => this.listen(), TICK_MS);
    this.onhide = () => this.log(document.visibilityState === "hidden" ? "hide" : "show");
    document.addEventListener("visibilitychange", this.onhide);
    this.log("open");
    this.update();
  }

  /** What was heard before a reload counts. */
  recall(slot, plays) {
    if (!plays) return;
    const names = slot === undefined || slot === null ? this.names : [String(slot), "reference"];
    for (const name of names.filter((known) => this.heard.has(known))) {
      this.heard.set(name, HEARD_S);
      if (name !== "reference") this.plays.set(name, plays);
    }
  }

  build() {
    const { kind, attributes } = this.study;
    const question = attributes.length === 1 && SLIDERS.includes(kind) ? h("p.question", {}, attributes[0].question) : null;
    this.playButton = h("button.play", { type: "button", onclick: () => this.player.toggle() });
    const reference = this.plan.reference ? this.button("reference") : null;
    const transport = h("section.transport", { "aria-label": tr("transport") }, this.playButton, reference, this.timeline.element);
    this.status = h("p.gate", { id: "gate" });
    this.nextButton = h("button.primary.next", { type: "button", "aria-describedby": "gate", onclick: () => this.goOn() }, tr("next"));
    return h(
      "section.card.trial",
      { "data-kind": kind, "aria-label": tr("trial") },
      this.plan.text ? h("div.page-text", {}, paragraphs(this.plan.text)) : null,
      question,
      transport,
      ROWS.includes(kind) ? null : h("div.sounds", {}, this.names.filter((name) => name !== "reference").map((name) => this.button(name))),
      SLIDERS.includes(kind) ? sliderBoard(this) : null,
      kind === "likert" ? stepBoard(this) : null,
      PAIRS.includes(kind) ? pairChoice(this) : null,
      kind === "acr" || kind === "dcr" ? steps(this) : null,
      h("div.card-foot", {}, this.status, this.nextButton),
      keyboardHelp(kind, this.names),
    );
  }

  title(name) {
    if (name === "reference") return tr("reference");
    if (name === "x") return "X";
    if (PAIRS.includes(this.study.kind)) return "AB"[Number(name)];
    return this.names.filter((known) => known !== "reference").length === 1 ? tr("sound") : String(Number(name) + 1);
  }

  /** The button that plays a sound; pressed again, it pauses. */
  button(name) {
    const title = this.title(name);
    const label = name === "reference" ? tr("play_reference") : tr("play_sound", { sound: title });
    const button = h(
      "button.sound",
      { type: "button", "data-sound": name, "aria-pressed": "false", "aria-label": label, onclick: () => this.press(name) },
      h("span.sound-title", {}, title),
      h("span.meter", { "aria-hidden": "true" }, h("i"), h("i"), h("i")),
    );
    if (name === "reference") button.classList.add("reference");
    this.buttons.set(name, button);
    return button;
  }

  press(name) {
    if (this.player.active === name) {
      this.player.toggle();
      return;
    }
    this.player.select(name);
    if (!this.player.playing) this.player.play();
  }

  changed(what) {
    const name = this.player.active;
    if (what === "switch") this.switches++;
    if ((what === "switch" && this.player.playing) || what === "play") this.plays.set(name, this.plays.get(name) + 1);
    const { start, end } = this.player.region;
    const rate = this.player.sampleRate;
    if (what === "loop") this.log("loop", start / rate, end / rate);
    else if (what !== "seek") this.log(what, this.player.position);
    this.update();
  }

  /** Add up for how long each sound has been heard. */
  listen() {
    if (!this.player.playing || this.context.state !== "running") return;
    const name = this.player.active;
    const before = this.heard.get(name);
    this.heard.set(name, before + TICK_MS / 1000);
    const enough = Math.min(HEARD_S, this.player.duration);
    if (before < enough && before + TICK_MS / 1000 >= enough) this.update();
  }

  value(slot, attribute) {
    const rating = this.values.get(`${slot ?? ""} ${attribute}`);
    return rating?.choice ?? rating?.value;
  }

  /** Whether a sound can be rated now; says why where it cannot. */
  mayRate(name) {
    if (!this.study.gates.rate_only_playing) return true;
    if (!this.player.playing) {
      this.say(tr("play_first"));
      return false;
    }
    if (name !== null && name !== this.player.active) this.player.select(name);
    return true;
  }

  rated(given) {
    const { slot } = given;
    const plays = slot === undefined ? [...this.plays.values()].reduce((sum, count) => sum + count, 0) : this.plays.get(String(slot));
    const rating = {
      trial: this.plan.index,
      ...given,
      started_at: this.startedAt,
      finished_at: new Date().toISOString(),
      plays,
      switches: this.switches,
    };
    this.values.set(`${slot ?? ""} ${given.attribute}`, rating);
    this.outbox.putRating(rating);
    this.update();
  }

  get unheard() {
    if (!this.study.gates.must_play) return [];
    const enough = Math.min(HEARD_S, this.player.duration) - 1e-6;
    return this.names.filter((name) => this.heard.get(name) < enough);
  }

  get unrated() {
    if (!this.study.gates.must_move) return 0;
    const sounds = PAIRS.includes(this.study.kind) ? 1 : this.plan.sounds;
    return sounds * this.study.attributes.length - this.values.size;
  }

  update() {
    for (const [name, button] of this.buttons) {
      const active = name === this.player.active;
      button.setAttribute("aria-pressed", String(active));
      button.classList.toggle("active", active);
      button.classList.toggle("playing", active && this.player.playing);
      button.classList.toggle("heard", this.study.gates.must_play && !this.unheard.includes(name));
      button.closest(".row")?.classList.toggle("active", active);
    }
    const playing = this.player.playing;
    this.playButton.replaceChildren(icon(playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", tr(playing ? "pause" : "play"));
    const parts = [];
    if (this.unheard.length) parts.push(tr("to_hear", { count: this.unheard.length }));
    if (this.unrated > 0) parts.push(tr("to_rate", { count: this.unrated }));
    this.ready = parts.length === 0;
    this.nextButton.setAttribute("aria-disabled", String(!this.ready));
    this.status.textContent = this.ready ? tr("ready") : parts.join(tr("list_join"));
    this.status.classList.toggle("ready", this.ready);
  }

  say(text) {
    this.status.textContent = text;
    announce(text);
    this.status.classList.remove("nudge");
    void this.status.offsetWidth; // restarts the animation
    this.status.classList.add("nudge");
  }

  goOn() {
    if (!this.ready) {
      this.update();
      this.say(this.status.textContent);
      return;
    }
    // Listening after the last change counts as well.
    for (const rating of this.values.values()) {
      const plays = rating.choice ? [...this.plays.values()].reduce((sum, count) => sum + count, 0) : this.plays.get(String(rating.slot));
      if ((plays ?? 0) > (rating.plays ?? 0)) this.outbox.putRating({ ...strip(rating), plays, switches: this.switches });
    }
    this.close();
    this.next();
  }

  log(what, seconds, until) {
    const event = { at: new Date().toISOString(), trial: this.plan.index, what, slot: this.player.active };
    if (seconds !== undefined) event.seconds = Math.round(seconds * 1000) / 1000;
    if (until !== undefined) event.until = Math.round(until * 1000) / 1000;
    this.events.push(event);
    if (this.events.length >= EVENTS_AT_ONCE || what === "hide") this.sendEvents();
  }

  sendEvents() {
    if (this.events.length) this.outbox.putEvents(this.events.splice(0));
  }

  /** Space plays, digits and letters choose a sound, arrows step through sounds or move the rating. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target, key } = event;
    const type = target.type ?? "";
    if (["text", "number", "textarea"].includes(type) || target.tagName === "SELECT") return;
    const isButton = target.closest?.("button, a, summary, label.option") !== null;
    if (key === " ") {
      if (isButton || type === "radio") return;
      event.preventDefault();
      this.player.toggle();
      return;
    }
    const name = this.keyName(key.toLowerCase());
    if (name) {
      event.preventDefault();
      this.player.select(name);
      if (!this.player.playing) this.player.play();
      return;
    }
    if (type === "range" || type === "radio" || target.role === "slider") return;
    if (key === "ArrowLeft" || key === "ArrowRight") {
      event.preventDefault();
      const at = this.names.indexOf(this.player.active) + (key === "ArrowRight" ? 1 : -1);
      this.player.select(this.names[(at + this.names.length) % this.names.length]);
    }
    if (key === "ArrowUp" || key === "ArrowDown") this.nudge(event, (key === "ArrowUp" ? 1 : -1) * (event.shiftKey ? 5 : 1));
  }

  keyName(key) {
    if ((key === "0" || key === "r") && this.heard.has("reference")) return "reference";
    if (PAIRS.includes(this.study.kind)) return { a: "0", 1: "0", b: "1", 2: "1", x: "x", 3: "x" }[key] ?? null;
    if (/^[1-9]$/.test(key) && this.heard.has(String(Number(key) - 1))) return String(Number(key) - 1);
    return null;
  }

  nudge(event, step) {
    const input = this.element.querySelector(`.row[data-sound="${this.player.active}"] input[type=range]`);
    if (!input) return;
    event.preventDefault();
    input.value = Number(input.value) + step * Number(input.step);
    input.dispatchEvent(new Event("input"));
  }

  close() {
    this.log("leave");
    this.sendEvents();
    clearInterval(this.tick);
    document.removeEventListener("keydown", this.onkey);
    document.removeEventListener("visibilitychange", this.onhide);
    this.timeline.close();
    this.player.close();
  }
}

/** A rating as it is sent: without what the server or the outbox added. */
function strip({ trial, slot, attribute, value, choice, started_at, finished_at }) {
  const sent = { trial, attribute, started_at, finished_at: finished_at || new Date().toISOString() };
  return choice === undefined ? { ...sent, slot, value } : { ...sent, choice };
}

function keyboardHelp(kind, names) {
  const keys = [["Space", tr("key_space")]];
  if (kind === "abx") keys.push(["A B X", tr("key_sounds")]);
  else if (kind === "ab") keys.push(["A B", tr("key_sounds")]);
  else keys.push([names.length > 2 ? `1–${Math.min(9, names.length - (names.includes("reference") ? 1 : 0))}` : "1", tr("key_sounds")]);
  if (names.includes("reference")) keys.push(["0", tr("key_reference")]);
  keys.push(["← →", tr("key_step")]);
  if (SLIDERS.includes(kind)) keys.push(["↑ ↓", tr("key_rate")]);
  return h(
    "details.keys",
    {},
    h("summary", {}, tr("keyboard")),
    h("dl", {}, keys.map(([key, text]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)))),
  );
}
