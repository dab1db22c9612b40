// Times in figures and in words.

import { tr } from "./words.js";

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A time left in words, coarse on purpose. */
export function about(seconds) {
  if (seconds < 60) return tr("seconds_left", { count: Math.max(5, Math.ceil(seconds / 5) * 5) });
  return tr("minutes_left", { count: Math.ceil(seconds / 60) });
}
