// Sample-synchronous playback: all sounds run together on one clock, and switching only moves their gains.

export const FADE_S = 0.005;
const LEAD_S = 0.01; // far enough ahead that the audio thread has not rendered it yet

/** Raised-cosine ramps of 5 ms with one value per sample; up and down add up to 1 everywhere. */
export function fadeCurves(sampleRate) {
  const samples = Math.round(FADE_S * sampleRate);
  const up = Float32Array.from({ length: samples + 1 }, (_, n) => 0.5 - 0.5 * Math.cos((Math.PI * n) / samples));
  return { samples, up, down: up.map((value) => 1 - value) };
}

/** Fade both ends of a buffer in place, so that it loops without a click. */
export function fadeEnds(buffer) {
  const { samples, up } = fadeCurves(buffer.sampleRate);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const wave = buffer.getChannelData(channel);
    for (let n = 0; n < samples && n < wave.length / 2; n++) {
      wave[n] *= up[n];
      wave[wave.length - 1 - n] *= up[n];
    }
  }
  return buffer;
}

/** A copy of the samples from start to end, with faded ends; the buffer itself where that is all of it. */
export function cut(context, buffer, start, end) {
  if (start <= 0 && end >= buffer.length) return buffer;
  const part = context.createBuffer(buffer.numberOfChannels, end - start, buffer.sampleRate);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    part.copyToChannel(buffer.getChannelData(channel).subarray(start, end), channel);
  }
  return fadeEnds(part);
}

/** Sounds started once, together; times are those of the context. */
export class Mixer {
  /** @param {BaseAudioContext} context @param {Map<string, AudioBuffer>} buffers of one length and rate @param {boolean} loop */
  constructor(context, buffers, loop = true) {
    this.context = context;
    this.loop = loop;
    this.curves = fadeCurves(context.sampleRate);
    this.length = [...buffers.values()][0].length;
    this.master = new GainNode(context, { gain: 0 });
    this.master.connect(context.destination);
    this.lanes = new Map();
    this.freeFrame = 0;
    for (const [name, buffer] of buffers) {
      const source = new AudioBufferSourceNode(context, { buffer, loop });
      const gain = new GainNode(context, { gain: 0 });
      source.connect(gain).connect(this.master);
      this.lanes.set(name, { source, gain });
    }
  }

  frame(time) {
    return Math.max(0, Math.ceil(time * this.context.sampleRate - 1e-3));
  }

  /** Start all sounds at one time, `offset` samples into the loop, hearing `active`; returns the time. */
  start(active, time, offset = 0) {
    const rate = this.context.sampleRate;
    const frame = this.frame(time);
    for (const [name, { source, gain }] of this.lanes) {
      gain.gain.setValueAtTime(name === active ? 1 : 0, 0);
      source.start(frame / rate, offset / rate);
    }
    this.active = active;
    this.startFrame = frame;
    this.offset = offset;
    this.master.gain.setValueAtTime(0, 0);
    this.ramp(this.master.gain, this.curves.up, frame);
    return frame / rate;
  }

  /** Fade to another sound; a switch during a switch waits for its end. Returns the time. */
  switchTo(name, time) {
    if (name === this.active) return time;
    const frame = Math.max(this.frame(time), this.freeFrame);
    this.ramp(this.lanes.get(this.active).gain.gain, this.curves.down, frame);
    this.ramp(this.lanes.get(name).gain.gain, this.curves.up, frame);
    this.active = name;
    this.freeFrame = frame + this.curves.samples + 1;
    return frame / this.context.sampleRate;
  }

  /** Fade out and end. */
  stop(time) {
    const rate = this.context.sampleRate;
    const frame = Math.max(this.frame(time), this.startFrame + this.curves.samples + 1);
    this.ramp(this.master.gain, this.curves.down, frame);
    for (const { source } of this.lanes.values()) source.stop((frame + this.curves.samples) / rate);
    this.whenOver(() => this.master.disconnect());
  }

  /** Call something when the sounds have ended: after a stop, or by themselves where they do not loop. */
  whenOver(over) {
    [...this.lanes.values()][0].source.onended = over;
  }

  ramp(parameter, curve, frame) {
    const rate = this.context.sampleRate;
    parameter.setValueCurveAtTime(curve, frame / rate, this.curves.samples / rate);
  }

  /** Samples into the loop at a time. */
  position(time) {
    const passed = Math.max(0, Math.round(time * this.context.sampleRate) - this.startFrame);
    return this.loop ? (this.offset + passed) % this.length : Math.min(this.offset + passed, this.length);
  }
}

/**
 * Sounds of one trial: play, pause, switch, seek and loop. `changed` is called after each.
 *
 * `loop`: go round, or play once and stop; `restart`: a switch goes back to the beginning instead of going on in step.
 */
export class Player {
  constructor(context, buffers, changed = () => {}, { loop = true, restart = false } = {}) {
    this.goesRound = loop;
    this.restarts = restart;
    this.context = context;
    this.buffers = buffers;
    this.changed = changed;
    const first = [...buffers.values()][0];
    this.sampleRate = first.sampleRate;
    this.length = first.length;
    this.region = { start: 0, end: first.length };
    this.active = [...buffers.keys()][0];
    this.mixer = null;
    this.paused = 0; // samples into the sound
    for (const buffer of new Set(buffers.values())) fadeEnds(buffer);
  }

  get playing() {
    return this.mixer !== null;
  }

  /** Seconds into the sound. */
  get position() {
    if (!this.mixer) return this.paused / this.sampleRate;
    return (this.region.start + this.mixer.position(this.context.currentTime)) / this.sampleRate;
  }

  get duration() {
    return this.length / this.sampleRate;
  }

  play() {
    if (this.mixer) return;
    if (this.context.state !== "running") this.context.resume();
    this.begin(LEAD_S);
    this.changed("play");
  }

  /** Start the sounds of the region where they were left, so many seconds from now. */
  begin(lead) {
    const { start, end } = this.region;
    const parts = new Map([...this.buffers].map(([name, buffer]) => [name, cut(this.context, buffer, start, end)]));
    const mixer = new Mixer(this.context, parts, this.goesRound);
    const offset = this.paused > start && this.paused < end ? this.paused - start : 0;
    mixer.start(this.active, this.context.currentTime + lead, offset);
    if (!this.goesRound) mixer.whenOver(() => this.ended(mixer));
    this.mixer = mixer;
  }

  /** A sound that does not go round is over: the next time it begins anew. */
  ended(mixer) {
    if (this.mixer !== mixer) return;
    mixer.master.disconnect();
    this.mixer = null;
    this.paused = this.region.start;
    this.changed("pause");
  }

  pause() {
    if (!this.mixer) return;
    this.paused = Math.round(this.position * this.sampleRate);
    this.mixer.stop(this.context.currentTime + LEAD_S);
    this.mixer = null;
    this.changed("pause");
  }

  toggle() {
    if (this.mixer) this.pause();
    else this.play();
  }

  select(name) {
    if (!this.buffers.has(name) || name === this.active) return;
    this.active = name;
    if (this.restarts) this.paused = this.region.start;
    if (this.mixer && this.restarts) {
      // The last sound has faded out before the next begins.
      this.mixer.stop(this.context.currentTime + LEAD_S);
      this.begin(LEAD_S + 2 * FADE_S);
    } else if (this.mixer) this.mixer.switchTo(name, this.context.currentTime + LEAD_S);
    this.changed("switch");
  }

  /** Go to a second of the sound. */
  seek(seconds) {
    const playing = this.playing;
    if (playing) this.pause();
    const { start, end } = this.region;
    this.paused = Math.min(Math.max(Math.round(seconds * this.sampleRate), start), end - 1);
    if (playing) this.play();
    else this.changed("seek");
  }

  /** Loop from one second to another. */
  loop(from, until) {
    const playing = this.playing;
    if (playing) this.pause();
    const start = Math.max(0, Math.round(from * this.sampleRate));
    const end = Math.min(this.length, Math.round(until * this.sampleRate));
    this.region = { start, end };
    if (this.paused < start || this.paused >= end) this.paused = start;
    this.changed("loop");
    if (playing) this.play();
  }

  close() {
    this.pause();
    this.changed = () => {};
    this.buffers.clear();
  }
}
