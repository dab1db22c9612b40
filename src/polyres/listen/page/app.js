// The listener's way through the test.

import { Api, ApiError } from "./api.js";
import { headphoneCheck, levelCheck } from "./checks.js";
import { h } from "./dom.js";
import { copyText, instructions, message, questionnaire, thanks, welcome } from "./forms.js";
import { LANGUAGES, currentLanguage, setLanguage, tr } from "./i18n.js";
import { Outbox } from "./outbox.js";
import { announce, show } from "./screens.js";
import { SoundError, SoundLoader, audioContext } from "./sounds.js";
import { Trial } from "./trial.js";

const RETRY_MS = 3000;
const EXTERNAL_IDS = ["PROLIFIC_PID", "participant", "workerId"];

class App {
  constructor() {
    this.api = new Api();
    this.store = `polyres-listen ${new URL(".", document.baseURI).pathname}`;
    const query = new URLSearchParams(location.search);
    this.external = (EXTERNAL_IDS.map((name) => query.get(name)).find((value) => value) ?? "").slice(0, 128);
    // Two people of one recruiting site may share a browser.
    this.tokenName = `${this.store} token ${this.external}`;
    this.trial = null;
    this.redraw = () => {};
  }

  async start() {
    this.head();
    window.addEventListener("hashchange", () => location.reload());
    this.api.token = this.token();
    await this.patiently(async () => {
      this.study = await this.api.call("GET", "study");
    });
    document.title = this.study.title;
    this.open = this.study.open;
    if (this.api.token) await this.visit();
    else if (this.study.open) this.screen(() => show(welcome(this.study, this.study.pages, () => this.join())));
    else this.screen(() => show(message(tr("closed_title"), [tr("closed_text")])));
  }

  /** From the link, or from an earlier visit of this browser. */
  token() {
    const fromLink = decodeURIComponent(location.hash.slice(1));
    if (fromLink) {
      this.keep(fromLink);
      history.replaceState(null, "", location.pathname + location.search);
    }
    try {
      return fromLink || localStorage.getItem(this.tokenName) || "";
    } catch {
      return fromLink;
    }
  }

  keep(token) {
    try {
      if (token) localStorage.setItem(this.tokenName, token);
      else localStorage.removeItem(this.tokenName);
    } catch {
      // without storage the link is the only way back
    }
  }

  /** Call until the server answers; other errors end the test with a message. */
  async patiently(call) {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.status === 401 || error.status === 410) {
          this.keep("");
          this.screen(() => show(message(tr(error.status === 401 ? "bad_link_title" : "withdrawn"), [tr(error.status === 401 ? "bad_link_text" : "withdrawn_text")])));
          return new Promise(() => {});
        }
        if (!error.passes) throw error;
        this.screen(() => show(message(tr("listening_test"), [tr("back_soon")])));
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  who() {
    return { external_id: this.external, language: currentLanguage() };
  }

  async join() {
    const made = await this.patiently(() => this.api.call("POST", "join", this.who()));
    this.api.token = made.token;
    this.keep(made.token);
    await this.visit(true);
  }

  async visit(agreed = false) {
    const visit = await this.patiently(() => this.api.call("POST", "visit", this.who()));
    Object.assign(this, { study: visit.study, trials: visit.trials, checks: visit.checks, link: visit.link, finished: visit.finished });
    this.answers = visit.answers;
    this.outbox = new Outbox(this.api, `${this.store} ${this.api.token.split(".")[0]}`, (state, size) => this.saved(state, size));
    Object.assign(this.checks, this.outbox.items.progress?.body ?? {});
    this.ratings = new Map();
    for (const rating of [...visit.ratings, ...this.outbox.ratings]) this.remember(rating);
    this.loader = new SoundLoader(this.api, this.study);
    this.begun = visit.ratings.length > 0 || (this.checks.position ?? 0) > 0;
    this.menu(true);
    if (visit.consented || !this.study.consent) {
      if (agreed && !visit.consented) await this.patiently(() => this.api.call("POST", "consent"));
      if (agreed || this.finished) await this.step();
      else if (this.begun) this.screen(() => show(this.back()));
      else this.screen(() => show(welcome({ ...this.study, consent: "" }, this.study.pages, () => this.step())));
    } else if (agreed) {
      await this.patiently(() => this.api.call("POST", "consent"));
      await this.step();
    } else {
      this.screen(() => show(welcome(this.study, this.study.pages, () => this.visitAgreed())));
    }
  }

  async visitAgreed() {
    await this.patiently(() => this.api.call("POST", "consent"));
    await this.step();
  }

  remember(rating) {
    const given = this.ratings.get(rating.trial) ?? new Map();
    given.set(`${rating.slot ?? ""} ${rating.attribute}`, rating);
    this.ratings.set(rating.trial, given);
  }

  back() {
    const go = h("button.primary", { type: "button", onclick: () => this.step() }, tr("resume"));
    return message(tr("welcome_back"), [tr("welcome_back_text")], h("div.card-foot", {}, h("span"), go));
  }

  /** Go to whatever comes next. */
  async step() {
    try {
      await this.nextStep();
    } catch (error) {
      this.fail(error);
    }
  }

  async nextStep() {
    const position = this.checks.position ?? 0;
    this.progress(position);
    if (this.finished) return this.screen(() => show(thanks(this.study, this.finished, this.open ? () => this.another() : null)));
    if (!this.checks.instructions_read) {
      return this.screen(() => show(instructions(this.study, () => this.note({ instructions_read: true }))));
    }
    const context = audioContext(this.study.sample_rate_hz);
    if (this.study.headphone_check && !this.checks.headphones) {
      return this.screen(() => show(headphoneCheck(context, (headphones) => this.note({ headphones }))));
    }
    if (this.study.level_check && !this.checks.level_set) return this.level(context);
    if (position < this.trials.length) return this.run(this.trials[position]);
    if (this.study.questionnaire.length && !this.answered) return this.ask();
    return this.finish();
  }

  note(progress) {
    Object.assign(this.checks, progress);
    this.outbox.putProgress(progress);
    return this.step();
  }

  async level(context) {
    const buffers = await this.load(this.trials[0]);
    const first = [...buffers.values()][0];
    this.screen(() => show(levelCheck(context, first, () => this.note({ level_set: true }))), false);
  }

  async load(plan) {
    const bar = h("progress", { max: 1, value: 0, "aria-label": tr("loading_sounds") });
    show(h("section.card.words.waiting", {}, h("h1", {}, tr("loading_sounds")), bar));
    return this.loader.load(plan, (part) => {
      bar.value = part;
    });
  }

  async run(plan) {
    const buffers = await this.load(plan);
    this.loader.prefetch(this.trials[plan.index + 1]);
    const known = [...(this.ratings.get(plan.index)?.values() ?? [])];
    const trial = new Trial({
      study: { ...this.study, ...this.study.parts[plan.part] },
      plan,
      buffers,
      outbox: this.outbox,
      known,
      next: () => this.leave(plan, trial),
    });
    this.trial = trial;
    const same = this.trials.filter((other) => other.training === plan.training);
    const values = { number: same.indexOf(plan) + 1, total: same.length };
    const title = tr(plan.training ? "training_page" : "test_page", values);
    const note = plan.training ? h("p.training-note", {}, tr("training_note")) : null;
    show(h("div.page-head", {}, h("h1", {}, title), note), trial.element);
    this.redraw = null; // a page with answers is not built again
  }

  leave(plan, trial) {
    this.ratings.set(plan.index, trial.values);
    this.trial = null;
    const next = this.trials[plan.index + 1];
    if (plan.training && next && !next.training) {
      this.checks.position = plan.index + 1;
      this.outbox.putProgress({ position: plan.index + 1 });
      const go = () => h("button.primary", { type: "button", onclick: () => this.step() }, tr("start_test"));
      this.screen(() => show(message(tr("training_over"), [tr("training_over_text")], h("div.card-foot", {}, h("span"), go()))));
      return;
    }
    this.note({ position: plan.index + 1 });
  }

  ask() {
    const send = async (answers) => {
      await this.waiting(() => this.api.call("PUT", "answers", { answers }));
      this.answers = answers;
      this.answered = true;
      await this.step();
    };
    this.screen(() => show(questionnaire(this.study.questionnaire, this.answers, send)));
  }

  /** Nothing is lost while the connection is down: wait, say so, and try again. */
  async waiting(call) {
    for (;;) {
      try {
        await this.outbox.flush();
        if (!this.outbox.size) return await call();
      } catch (error) {
        if (!(error instanceof ApiError) || !error.passes) throw error;
      }
      this.screen(() => show(message(tr("finishing"), [tr("finish_waits")])));
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  async finish() {
    this.screen(() => show(message(tr("finishing"), [])));
    this.finished = await this.waiting(() => this.api.call("POST", "finish"));
    await this.step();
  }

  /** On a computer that listeners share. */
  another() {
    this.keep("");
    location.reload();
  }

  fail(error) {
    console.error(error);
    const known = error instanceof SoundError || error instanceof ApiError;
    const again = h("button.primary", { type: "button", onclick: () => location.reload() }, tr("retry"));
    const text = known ? error.message : String(error);
    show(message(tr("problem"), [text], h("div.card-foot", {}, h("span"), again)));
    announce(text);
  }

  /** Draw a screen, and again when the language changes. */
  screen(draw, again = true) {
    this.redraw = again ? draw : null;
    draw();
  }

  head() {
    const select = document.querySelector("#language");
    for (const [tag, texts] of Object.entries(LANGUAGES)) select.append(h("option", { value: tag }, texts.language));
    select.value = currentLanguage();
    select.addEventListener("change", () => {
      setLanguage(select.value);
      this.words();
      if (this.redraw) this.redraw();
      else location.reload();
    });
    document.querySelector("#copy-link").addEventListener("click", (event) => copyText(this.link, event.target));
    const dialog = document.querySelector("#withdraw-dialog");
    document.querySelector("#withdraw").addEventListener("click", () => dialog.showModal());
    dialog.addEventListener("close", () => dialog.returnValue === "yes" && this.withdraw());
    this.words();
  }

  words() {
    document.documentElement.lang = currentLanguage();
    for (const element of document.querySelectorAll("[data-text]")) element.textContent = tr(element.dataset.text);
    for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", tr(element.dataset.label));
    if (this.outbox) this.saved(this.outbox.state, this.outbox.size);
  }

  menu(visible) {
    document.querySelector("#menu").hidden = !visible;
  }

  progress(position) {
    const bar = document.querySelector("#progress");
    bar.hidden = false;
    bar.max = this.trials.length;
    bar.value = this.finished ? this.trials.length : position;
  }

  saved(state) {
    const sign = document.querySelector("#saved");
    sign.dataset.state = state;
    sign.textContent = state === "refused" ? tr("bad_link_title") : tr(state);
  }

  async withdraw() {
    this.trial?.close();
    this.trial = null;
    await this.patiently(() => this.api.call("DELETE", "me"));
    this.outbox.clear();
    this.keep("");
    this.menu(false);
    this.screen(() => show(message(tr("withdrawn"), [tr("withdrawn_text")])));
  }
}

const app = new App();
app.start().catch((error) => app.fail(error));
