// Asking tsmon again, one refresh at a time, and what the page says of its own connection.

import { Live } from "./api.js";
import { $ } from "./dom.js";
import { clock, tickAll } from "./words.js";

const LOST_AFTER = 5000; // a restart is over sooner
const RETRY = 5000;

export class Refresh {
  // `work` asks for everything and shows it, and tells when tsmon last looked; `event` hears of each event.
  constructor(work, event) {
    this.work = work;
    this.running = false;
    this.again = false;
    this.due = 0; // the refresh that is due
    this.lostSince = 0; // when tsmon stopped answering
    this.lastLook = null; // when tsmon saw what is shown
    this.failure = null; // of the last refresh: a living stream does not make up for it
    this.stream = { word: "connecting", text: "page connects" };
    this.event = event;
  }

  start() {
    new Live(
      (kind, data) => {
        if (kind === "alert") return; // its event came with it
        if (kind === "event") this.event(data.event);
        this.soon(kind === "refresh" ? 0 : 200);
      },
      (word, text) => {
        this.stream = { word, text };
        this.show();
      },
    );
    this.now();
    setInterval(() => {
      tickAll(this.lostSince > 0);
      this.showLost();
    }, 2000);
  }

  soon(wait) {
    clearTimeout(this.due);
    this.due = setTimeout(() => this.now(), wait);
  }

  // A burst of news is one refresh more.
  async now() {
    if (document.hidden) return;
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    try {
      this.lastLook = await this.work();
      this.failure = null;
      this.show();
    } catch (error) {
      this.fail(error);
    } finally {
      this.running = false;
      if (this.again) {
        this.again = false;
        this.soon(250);
      }
    }
  }

  fail(error) {
    const answered = error.status !== undefined;
    this.failure = { text: `${answered ? "error" : "no answer from tsmon"}: ${error.message}`, answered };
    this.show();
    this.soon(RETRY);
  }

  attempt(work) {
    return work().catch((error) => this.fail(error));
  }

  show() {
    const { word, text } = this.failure ? { word: "stale", text: this.failure.text } : this.stream;
    $("live").dataset.state = word;
    if ($("live-text").textContent !== text) $("live-text").textContent = text;
    document.body.dataset.live = word;
    if (word !== "stale") this.lostSince = 0;
    else if (!this.lostSince) this.lostSince = Date.now();
    this.showLost();
  }

  // A page without tsmon must not go on saying that all is well: what it shows is what was known once.
  showLost() {
    if (!this.lostSince || Date.now() - this.lostSince < LOST_AFTER) return;
    const fault = this.failure?.answered ? "answers with errors" : "does not answer";
    const words = `tsmon ${fault} since ${clock(new Date(this.lostSince).toISOString())}`;
    if ($("headline").textContent !== words) $("headline").textContent = words;
    $("headline").dataset.status = "unknown";
    document.body.dataset.level = "unknown";
    document.body.dataset.blind = "yes";
    $("blind").hidden = false;
    $("blind").textContent = this.lastLook
      ? `The last known state is below, as of ${clock(this.lastLook)}.`
      : "Nothing is known yet.";
    $("favicon").setAttribute("href", "web/unknown.svg");
    document.title = `? ${words} · tsmon`;
  }
}
