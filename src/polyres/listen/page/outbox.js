// What is still to be sent: written to the browser's storage at once, and kept until the server has acknowledged it.

import { ApiError } from "./api.js";

const QUIET_MS = 300;
const MAX_WAIT_MS = 30000;
const BATCH = 32;

export class Outbox {
  /** @param {string} name of the storage entry, one per listener @param changed called when the state changes */
  constructor(api, name, changed = () => {}) {
    this.api = api;
    this.name = name;
    this.changed = changed;
    this.state = "saved"; // or "saving", "offline"
    this.failures = 0;
    this.timer = null;
    this.running = null;
    this.items = this.read();
    this.lastRevision = 0;
    window.addEventListener("online", () => this.flush());
    window.addEventListener("pagehide", () => this.flush(true));
    document.addEventListener("visibilitychange", () => this.flush(document.visibilityState === "hidden"));
    if (this.size) this.later(0);
  }

  get size() {
    return Object.keys(this.items).length;
  }

  /** Ratings that the server may not have yet. */
  get ratings() {
    return Object.values(this.items).filter((item) => item.path === "ratings").map((item) => item.body);
  }

  /** A number larger than all before, also after a reload. */
  revision() {
    this.lastRevision = Math.max(this.lastRevision + 1, Date.now());
    return this.lastRevision;
  }

  putRating(rating) {
    const key = `rating ${rating.trial} ${rating.slot ?? ""} ${rating.attribute}`;
    this.put(key, "PUT", "ratings", { ...rating, revision: this.revision() });
  }

  putProgress(progress) {
    const known = this.items.progress?.body ?? {};
    this.put("progress", "PUT", "progress", { ...known, ...progress });
  }

  putEvents(events) {
    const batch = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => (byte % 36).toString(36)).join("");
    if (this.size < 500) this.put(`events ${batch}`, "POST", "events", { batch, events });
  }

  put(key, method, path, body) {
    this.items[key] = { method, path, body, revision: this.revision() };
    this.write();
    this.show(this.failures ? "offline" : "saving");
    if (!this.failures) this.later(QUIET_MS);
  }

  later(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), wait);
  }

  /** Send what there is; resolves when everything is acknowledged or a call has failed. */
  async flush(leaving = false) {
    clearTimeout(this.timer);
    if (this.running && !leaving) await this.running;
    if (!this.size) return;
    this.running = this.sendAll(leaving);
    await this.running;
    this.running = null;
  }

  async sendAll(leaving) {
    try {
      while (this.size) await this.sendSome(leaving);
      this.failures = 0;
      this.show("saved");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.failures++;
      this.show(error.status === 401 || error.status === 410 ? "refused" : "offline");
      this.later(Math.min(MAX_WAIT_MS, 1000 * 2 ** this.failures));
    }
  }

  async sendSome(leaving) {
    const entries = Object.entries(this.items);
    const ratings = entries.filter(([, item]) => item.path === "ratings").slice(0, BATCH);
    if (ratings.length) {
      const body = { ratings: ratings.map(([, item]) => item.body) };
      await this.sendItems(ratings, "PUT", "ratings", body, leaving);
    } else {
      const [key, item] = entries[0];
      await this.sendItems([[key, item]], item.method, item.path, item.body, leaving);
    }
  }

  async sendItems(entries, method, path, body, leaving) {
    try {
      await this.api.call(method, path, body, leaving);
    } catch (error) {
      if (error.passes || error.status === 401 || error.status === 410) throw error;
      if (path === "ratings" && entries.length > 1) {
        // One that is refused must not hold up the others.
        for (const [key, item] of entries) {
          await this.sendItems([[key, item]], method, path, { ratings: [item.body] }, leaving);
        }
        return;
      }
      console.warn(`refused for good: ${path}: ${error.message}`);
    }
    for (const [key, item] of entries) {
      if (this.items[key]?.revision === item.revision) delete this.items[key];
    }
    this.write();
  }

  show(state) {
    this.state = state;
    this.changed(state, this.size);
  }

  read() {
    try {
      return JSON.parse(localStorage.getItem(this.name) ?? "{}");
    } catch {
      return {};
    }
  }

  write() {
    try {
      if (this.size) localStorage.setItem(this.name, JSON.stringify(this.items));
      else localStorage.removeItem(this.name);
    } catch {
      // Private windows may forbid storage; the copy in memory is still sent.
    }
  }

  clear() {
    clearTimeout(this.timer);
    this.items = {};
    this.write();
  }
}
