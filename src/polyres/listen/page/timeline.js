// The line of time: waveform of the open reference, playhead, and a region to loop.

import { h } from "./dom.js";
import { tr } from "./i18n.js";

export const MIN_LOOP_S = 0.5;
const STEP_S = 0.1;
const BARS = 160;

/** Peak per bar, 0 to 1 of the loudest. */
export function peaks(buffer, bars) {
  const found = new Float32Array(bars);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const wave = buffer.getChannelData(channel);
    for (let n = 0; n < wave.length; n++) {
      const bar = Math.min(bars - 1, Math.floor((n * bars) / wave.length));
      found[bar] = Math.max(found[bar], Math.abs(wave[n]));
    }
  }
  const top = Math.max(...found) || 1;
  return found.map((peak) => peak / top);
}

export function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
}

export class Timeline {
  /** @param {Player} player @param {AudioBuffer|null} shown never a sound whose name is hidden */
  constructor(player, shown) {
    this.player = player;
    this.duration = player.duration;
    this.from = 0;
    this.until = this.duration;
    this.bars = h("div.bars", { "aria-hidden": "true" });
    const heights = shown ? peaks(shown, BARS) : new Float32Array(BARS).fill(0.06);
    for (const height of heights) {
      const bar = h("i");
      bar.style.height = `${Math.max(4, Math.round(100 * height))}%`;
      this.bars.append(bar);
    }
    this.region = h("div.region", { "aria-hidden": "true" });
    this.head = h("div.playhead", { "aria-hidden": "true" });
    this.handles = {
      from: this.handle("from", tr("loop_start")),
      until: this.handle("until", tr("loop_end")),
    };
    this.track = h("div.track", {}, this.bars, this.region, this.head, this.handles.from, this.handles.until);
    this.time = h("span.time", { "aria-hidden": "true" });
    this.whole = h("button.quiet.whole", { type: "button", onclick: () => this.set(0, this.duration, true) }, tr("whole"));
    this.element = h("div.timeline", {}, this.track, h("div.timeline-foot", {}, this.time, this.whole));
    this.track.addEventListener("pointerdown", (event) => this.press(event));
    this.draw();
    this.frame = requestAnimationFrame(() => this.follow());
  }

  handle(which, label) {
    return h("div.handle", {
      role: "slider",
      tabindex: "0",
      "aria-label": label,
      "data-handle": which,
      onkeydown: (event) => this.key(event, which),
    });
  }

  key(event, which) {
    const step = event.shiftKey ? 10 * STEP_S : STEP_S;
    const moves = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step };
    const ends = { Home: which === "from" ? 0 : this.from + MIN_LOOP_S, End: which === "until" ? this.duration : this.until };
    if (!(event.key in moves) && !(event.key in ends)) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(which, event.key in moves ? this[which] + moves[event.key] : ends[event.key], true);
  }

  move(which, seconds, commit) {
    if (which === "from") this.set(Math.min(seconds, this.until - MIN_LOOP_S), this.until, commit);
    else this.set(this.from, Math.max(seconds, this.from + MIN_LOOP_S), commit);
  }

  set(from, until, commit) {
    const shortest = Math.min(MIN_LOOP_S, this.duration);
    this.from = Math.min(Math.max(0, from), this.duration - shortest);
    this.until = Math.max(Math.min(this.duration, until), this.from + shortest);
    this.draw();
    if (commit) this.player.loop(this.from, this.until);
  }

  at(event) {
    const box = this.track.getBoundingClientRect();
    return (Math.min(Math.max(0, event.clientX - box.left), box.width) / box.width) * this.duration;
  }

  /** A handle moves an end; a drag on the line chooses a region; a tap on it seeks. */
  press(event) {
    if (event.button > 0) return;
    const which = event.target.dataset?.handle;
    const origin = this.at(event);
    const before = [this.from, this.until];
    let dragged = false;
    this.track.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const seconds = this.at(moved);
      dragged ||= Math.abs(moved.clientX - event.clientX) > 6;
      if (!dragged) return;
      if (which) this.move(which, seconds, false);
      else this.set(Math.min(origin, seconds), Math.max(origin, seconds), false);
    };
    const end = (last) => {
      for (const name of ["pointermove", "pointerup", "pointercancel"]) {
        this.track.removeEventListener(name, name === "pointermove" ? move : end);
      }
      if (last.type === "pointercancel") this.set(before[0], before[1], false);
      else if (dragged) this.set(this.from, this.until, true);
      else if (!which) this.player.seek(origin);
    };
    this.track.addEventListener("pointermove", move);
    this.track.addEventListener("pointerup", end);
    this.track.addEventListener("pointercancel", end);
  }

  draw() {
    const percent = (seconds) => `${(100 * seconds) / this.duration}%`;
    this.region.style.left = percent(this.from);
    this.region.style.width = percent(this.until - this.from);
    for (const [which, element] of Object.entries(this.handles)) {
      element.style.left = percent(this[which]);
      element.setAttribute("aria-valuemin", "0");
      element.setAttribute("aria-valuemax", this.duration.toFixed(1));
      element.setAttribute("aria-valuenow", this[which].toFixed(1));
      element.setAttribute("aria-valuetext", tr("seconds", { seconds: this[which].toFixed(1) }));
    }
    const isWhole = this.from === 0 && this.until === this.duration;
    this.whole.style.visibility = isWhole ? "hidden" : "visible";
    [...this.bars.children].forEach((bar, n) => {
      const middle = ((n + 0.5) / BARS) * this.duration;
      bar.classList.toggle("outside", middle < this.from || middle > this.until);
    });
  }

  follow() {
    const position = this.player.position;
    this.head.style.left = `${(100 * position) / this.duration}%`;
    const text = `${clock(position)} / ${clock(this.duration)}`;
    if (this.time.textContent !== text) this.time.textContent = text;
    this.frame = requestAnimationFrame(() => this.follow());
  }

  close() {
    cancelAnimationFrame(this.frame);
  }
}
