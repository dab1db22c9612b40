// Before the test: level, and whether headphones are worn (Woods et al. 2017).

import { h, icon } from "./dom.js";
import { Player } from "./engine.js";
import { tr } from "./i18n.js";
import { announce } from "./screens.js";

const TONE_HZ = 200;
const TONE_S = 1;
const RAMP_S = 0.1;
const GAP_S = 0.5;
const QUIET = 0.5; // −6 dB
const TRIALS = 6;
const PASS = 5;

/** Three tones: plain, quieter, and one with its channels against each other, in a given order. */
export function toneTriplet(context, order) {
  const rate = context.sampleRate;
  const tone = Math.round(TONE_S * rate);
  const step = tone + Math.round(GAP_S * rate);
  const ramp = Math.round(RAMP_S * rate);
  const buffer = context.createBuffer(2, 3 * step, rate);
  const [left, right] = [buffer.getChannelData(0), buffer.getChannelData(1)];
  order.forEach((what, place) => {
    const level = 0.25 * (what === "quiet" ? QUIET : 1);
    for (let n = 0; n < tone; n++) {
      const edge = Math.min(1, n / ramp, (tone - 1 - n) / ramp);
      const wave = level * (0.5 - 0.5 * Math.cos(Math.PI * edge)) * Math.sin((2 * Math.PI * TONE_HZ * n) / rate);
      left[place * step + n] = wave;
      right[place * step + n] = what === "anti" ? -wave : wave;
    }
  });
  return buffer;
}

/** The quiet tone stands twice in each place, so that guessing one place gains nothing. */
function orders() {
  const places = shuffled([0, 1, 2, 0, 1, 2]);
  return places.map((place) => {
    const others = shuffled(["plain", "anti"]);
    return [0, 1, 2].map((n) => (n === place ? "quiet" : others.pop()));
  });
}

function shuffled(items) {
  const left = [...items];
  const result = [];
  while (left.length) result.push(left.splice(crypto.getRandomValues(new Uint32Array(1))[0] % left.length, 1)[0]);
  return result;
}

/** @returns {HTMLElement} a card; `done({correct, trials, attempts, passed})` is called when the listener goes on */
export function headphoneCheck(context, done) {
  const card = h("section.card.check-card");
  let attempts = 0;
  const begin = () => {
    attempts++;
    run(card, context, (correct) => {
      const result = { correct, trials: TRIALS, attempts, passed: correct >= PASS };
      if (result.passed) done(result);
      else fail(result);
    });
  };
  const fail = (result) => {
    const again = h("button.primary", { type: "button", onclick: begin }, tr("try_again"));
    const anyway = attempts > 1 ? h("button.quiet", { type: "button", onclick: () => done(result) }, tr("go_on_anyway")) : null;
    card.replaceChildren(h("h1", { tabindex: "-1" }, tr("headphones_failed")), h("p", {}, tr("headphones_failed_text")), h("div.card-foot", {}, anyway, again));
    card.querySelector("h1").focus();
  };
  const start = h("button.primary", { type: "button", onclick: begin }, tr("start_check"));
  card.append(h("h1", {}, tr("headphones")), h("p", {}, tr("headphones_text")), h("p", {}, tr("headphones_task")), h("div.card-foot", {}, h("span"), start));
  return card;
}

function run(card, context, finished) {
  const queue = orders();
  let correct = 0;
  const ask = (number) => {
    const order = queue[number];
    const progress = tr("of", { number: number + 1, total: TRIALS });
    const tones = [1, 2, 3].map((n) => h("button.tone", { type: "button", disabled: true, onclick: () => answer(n - 1) }, tr("tone", { number: n })));
    const answer = (place) => {
      correct += order[place] === "quiet" ? 1 : 0;
      if (number + 1 < queue.length) ask(number + 1);
      else finished(correct);
    };
    const play = h("button.primary", { type: "button", onclick: () => start() }, icon("play"), tr("play_tones"));
    const start = () => {
      play.disabled = true;
      context.resume();
      const source = new AudioBufferSourceNode(context, { buffer: toneTriplet(context, order) });
      source.connect(context.destination);
      source.start();
      tones.forEach((button, n) => {
        setTimeout(() => button.classList.add("sounding"), 1000 * n * (TONE_S + GAP_S));
        setTimeout(() => button.classList.remove("sounding"), 1000 * (n * (TONE_S + GAP_S) + TONE_S));
      });
      source.onended = () => {
        for (const button of tones) button.disabled = false;
        announce(tr("which_quietest"));
        tones[0].focus();
      };
    };
    card.replaceChildren(h("h1", { tabindex: "-1" }, tr("which_quietest")), h("p.muted", {}, progress), h("div.tones", {}, tones), h("div.card-foot", {}, h("span"), play));
    play.focus();
  };
  ask(0);
}

/** Play the first sound of the test until the listener has set a comfortable level. */
export function levelCheck(context, buffer, done) {
  const player = new Player(context, new Map([["sound", buffer]]), () => draw());
  const button = h("button.play.large", { type: "button", onclick: () => player.toggle() });
  const draw = () => {
    button.replaceChildren(icon(player.playing ? "pause" : "play"));
    button.setAttribute("aria-label", tr(player.playing ? "pause" : "play"));
    next.setAttribute("aria-disabled", "false");
  };
  const finish = () => {
    if (next.getAttribute("aria-disabled") === "true") {
      announce(tr("play_first"));
      button.focus();
      return;
    }
    player.close();
    done();
  };
  const next = h("button.primary", { type: "button", "aria-disabled": "true", onclick: finish }, tr("level_done"));
  button.append(icon("play"));
  button.setAttribute("aria-label", tr("play"));
  return h(
    "section.card.check-card",
    {},
    h("h1", {}, tr("level")),
    h("p", {}, tr("level_text")),
    h("div.level", {}, button),
    h("p.muted", {}, tr("level_phone")),
    h("div.card-foot", {}, h("span"), next),
  );
}
