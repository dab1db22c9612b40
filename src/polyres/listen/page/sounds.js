// Fetching and decoding the sounds of a trial, and checking that nothing was changed on the way.

import { tr } from "./i18n.js";

export class SoundError extends Error {}

let context = null;

/** The page's only audio context, at the rate of the study so that nothing is resampled. */
export function audioContext(sampleRate) {
  if (context) return context;
  if (!window.AudioContext) throw new SoundError(tr("no_web_audio"));
  try {
    context = new AudioContext({ sampleRate, latencyHint: "interactive" });
  } catch {
    throw new SoundError(tr("no_rate", { rate: sampleRate }));
  }
  return context;
}

/** Rate, channels and samples that the header of a WAV file tells. */
export function wavHeader(bytes) {
  const view = new DataView(bytes);
  const tag = (at) => String.fromCharCode(...new Uint8Array(bytes, at, 4));
  if (bytes.byteLength < 12 || tag(0) !== "RIFF" || tag(8) !== "WAVE") throw new SoundError(tr("bad_sound"));
  let format = null;
  for (let at = 12; at + 8 <= bytes.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (tag(at) === "fmt ") {
      format = { channels: view.getUint16(at + 10, true), rate: view.getUint32(at + 12, true) };
      format.frameBytes = view.getUint16(at + 20, true);
    }
    if (tag(at) === "data" && format) return { ...format, samples: Math.floor(size / format.frameBytes) };
    at += 8 + size + (size % 2);
  }
  throw new SoundError(tr("bad_sound"));
}

/** Names of the sounds of a trial in the order of their buttons. */
export function soundNames(trial, kind) {
  const names = trial.reference ? ["reference"] : [];
  for (let slot = 0; slot < trial.sounds; slot++) names.push(String(slot));
  if (kind === "abx") names.push("x");
  return names;
}

export class SoundLoader {
  constructor(api, study) {
    this.api = api;
    this.study = study;
    this.waiting = new Map(); // trial index -> promises of bytes, for the trial after this one
  }

  /** Begin to fetch a trial's sounds. */
  prefetch(trial) {
    if (!trial || this.waiting.has(trial.index)) return;
    const names = soundNames(trial, this.study.parts[trial.part].kind);
    const fetched = names.map((name) => this.api.audio(trial.index, name));
    for (const promise of fetched) promise.catch(() => {});
    this.waiting.set(trial.index, fetched);
  }

  /** @returns {Promise<Map<string, AudioBuffer>>} */
  async load(trial, progress = () => {}) {
    this.prefetch(trial);
    const fetched = this.waiting.get(trial.index);
    this.waiting.delete(trial.index);
    for (const index of this.waiting.keys()) if (index !== trial.index + 1) this.waiting.delete(index);
    const names = soundNames(trial, this.study.parts[trial.part].kind);
    const target = audioContext(this.study.sample_rate_hz);
    let done = 0;
    const decoded = await Promise.all(
      fetched.map(async (promise) => {
        const bytes = await promise;
        const header = wavHeader(bytes);
        const buffer = await target.decodeAudioData(bytes);
        progress(++done / names.length);
        return { header, buffer };
      }),
    );
    this.check(decoded);
    return new Map(names.map((name, n) => [name, decoded[n].buffer]));
  }

  check(decoded) {
    const rate = this.study.sample_rate_hz;
    const first = decoded[0].header;
    for (const { header, buffer } of decoded) {
      const same = header.samples === first.samples && header.channels === first.channels;
      if (header.rate !== rate || !same) throw new SoundError(tr("sounds_differ"));
      if (buffer.sampleRate !== rate || buffer.length !== header.samples) {
        throw new SoundError(tr("no_rate", { rate }));
      }
    }
  }
}
