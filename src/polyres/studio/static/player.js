// All lanes of all results run together on one clock; whatever is heard or not is a matter of gains alone.

export const FADE_S = 0.005;
const LEAD_S = 0.02; // far enough ahead that the audio thread has not rendered it yet
const WHOLE_S = 0.05; // shorter loops are taken as a click

/** Sounds of several results of one song: play, pause, seek, loop, and the mix of each. */
export class Player {
  /** @param {BaseAudioContext} context @param {() => void} changed */
  constructor(context, changed = () => {}) {
    this.context = context;
    this.changed = changed;
    this.master = new GainNode(context, { gain: 0 });
    this.master.connect(context.destination);
    this.groups = new Map(); // result id -> { bus, lanes: Map(name -> lane) }
    this.active = null;
    this.duration = 0;
    this.region = null; // [from, until] in seconds
    this.playing = false;
    this.paused = 0;
  }

  /** Add a result; `buffers` are of the context's rate and of one length. */
  add(id, buffers) {
    const bus = new GainNode(this.context, { gain: 0 });
    bus.connect(this.master);
    const lanes = new Map();
    for (const [name, buffer] of buffers) {
      // Two channels always: a mono stem in the middle is as loud as it was in the song.
      const pan = new StereoPannerNode(this.context, { channelCount: 2, channelCountMode: "explicit" });
      const gain = new GainNode(this.context, { gain: 0 });
      gain.connect(pan).connect(bus);
      lanes.set(name, { buffer, gain, pan, source: null });
      this.duration = Math.max(this.duration, buffer.duration);
    }
    this.groups.set(id, { bus, lanes });
    if (this.playing) {
      const position = this.position;
      this.halt();
      this.paused = position;
      this.start();
    }
  }

  remove(id) {
    const group = this.groups.get(id);
    if (!group) return;
    for (const lane of group.lanes.values()) {
      lane.source?.stop();
      lane.source?.disconnect();
    }
    group.bus.disconnect();
    this.groups.delete(id);
    if (this.active === id) this.active = null;
  }

  /** Hear another result from the same place on. */
  choose(id) {
    if (!this.groups.has(id) || id === this.active) return;
    if (this.active) this.glide(this.groups.get(this.active).bus.gain, 0);
    this.active = id;
    this.glide(this.groups.get(id).bus.gain, 1);
    this.changed();
  }

  /** Set the mix of a result: name to {gain (factor), pan}. */
  setMix(id, mix) {
    const group = this.groups.get(id);
    if (!group) return;
    for (const [name, lane] of group.lanes) {
      const { gain, pan } = mix.get(name) ?? { gain: 0, pan: 0 };
      this.glide(lane.gain.gain, gain);
      this.glide(lane.pan.pan, pan);
    }
  }

  /** Move a parameter within a few milliseconds, without a click. */
  glide(parameter, value) {
    const now = this.context.currentTime;
    if (this.context.state !== "running" || !this.playing) {
      parameter.cancelScheduledValues(0);
      parameter.setValueAtTime(value, now);
      return;
    }
    parameter.cancelAndHoldAtTime ? parameter.cancelAndHoldAtTime(now) : parameter.cancelScheduledValues(now);
    parameter.setTargetAtTime(value, now, FADE_S / 3);
  }

  get bounds() {
    return this.region ?? [0, this.duration];
  }

  get position() {
    if (!this.playing) return this.paused;
    const [from, until] = this.bounds;
    const passed = Math.max(0, this.context.currentTime - this.startTime);
    const ahead = this.offset + passed;
    return ahead < until ? ahead : from + ((ahead - until) % Math.max(until - from, 1e-3));
  }

  start() {
    const [from, until] = this.bounds;
    const offset = this.paused >= from && this.paused < until - 0.01 ? this.paused : from;
    const time = this.context.currentTime + LEAD_S;
    for (const { lanes } of this.groups.values()) {
      for (const lane of lanes.values()) {
        const source = new AudioBufferSourceNode(this.context, { buffer: lane.buffer, loop: true });
        source.loopStart = from;
        source.loopEnd = Math.min(until, lane.buffer.duration);
        source.connect(lane.gain);
        source.start(time, offset);
        lane.source = source;
      }
    }
    this.startTime = time;
    this.offset = offset;
    this.playing = true;
    this.master.gain.cancelScheduledValues(0);
    this.master.gain.setValueAtTime(0, time);
    this.master.gain.linearRampToValueAtTime(1, time + FADE_S);
  }

  halt() {
    const now = this.context.currentTime;
    this.master.gain.cancelScheduledValues(now);
    this.master.gain.setTargetAtTime(0, now, FADE_S / 3);
    for (const { lanes } of this.groups.values()) {
      for (const lane of lanes.values()) {
        const source = lane.source;
        lane.source = null;
        if (!source) continue;
        source.stop(now + 2 * FADE_S);
        source.onended = () => source.disconnect();
      }
    }
    this.playing = false;
  }

  play() {
    if (this.playing || !this.groups.size) return;
    if (this.context.state !== "running") this.context.resume();
    this.start();
    this.changed();
  }

  pause() {
    if (!this.playing) return;
    this.paused = this.position;
    this.halt();
    this.changed();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  moved(change) {
    const playing = this.playing;
    if (playing) {
      this.paused = this.position;
      this.halt();
    }
    change();
    if (playing) this.start();
    this.changed();
  }

  /** Go to a second of the song; outside of the loop ends it. */
  seek(seconds) {
    this.moved(() => {
      this.paused = Math.min(Math.max(seconds, 0), Math.max(0, this.duration - 0.01));
      if (this.region && (this.paused < this.region[0] || this.paused >= this.region[1])) this.region = null;
    });
  }

  /** Loop a part; null for the whole song. */
  loop(from, until) {
    this.moved(() => {
      const low = Math.max(0, Math.min(from ?? 0, until ?? 0));
      const high = Math.min(this.duration, Math.max(from ?? 0, until ?? 0));
      this.region = high - low >= WHOLE_S ? [low, high] : null;
      if (this.region) this.paused = low;
    });
  }

  close() {
    if (this.playing) this.halt();
    for (const id of [...this.groups.keys()]) this.remove(id);
    this.master.disconnect();
  }
}
