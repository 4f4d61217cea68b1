// Reading tsmon: JSON answers with their ETags, and the live stream.

const API = new URL("health-monitoring/", document.baseURI);
const SILENCE = 60_000; // the stream tells something at every poll; after so many ms of nothing it is not trusted
const POLL = 15_000;

export function link(path, query = {}) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url;
}

export async function read(path, query = {}) {
  const response = await fetch(link(path, query), { headers: { Accept: "application/json" } });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(answer.error?.message ?? `answered ${response.status}`);
    error.status = response.status;
    error.answer = answer;
    throw error;
  }
  return { answer, total: Number(response.headers.get("X-Total-Count") ?? answer.length ?? 0) };
}

// Follows the stream while the page is seen. `hear(kind, data)` gets each message, `state(word)` is one of
// connecting, live, polling, stale.
export class Live {
  constructor(hear, state) {
    this.hear = hear;
    this.state = state;
    this.source = null;
    this.heard = 0;
    this.began = 0;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return this.close();
      this.open();
      this.hear("refresh"); // what was missed, even where the stream brings nothing
    });
    setInterval(() => this.watch(), 5000);
    this.open();
  }

  open() {
    if (this.source || document.hidden) return;
    this.began = Date.now();
    this.heard = 0;
    this.state("connecting", "page connects");
    this.source = new EventSource(link("stream"));
    this.source.addEventListener("open", () => this.hear("refresh"));
    for (const kind of ["snapshot", "event", "alert"]) {
      this.source.addEventListener(kind, (message) => {
        this.heard = Date.now();
        this.state("live", "page connected");
        this.hear(kind, JSON.parse(message.data));
      });
    }
    this.source.addEventListener("error", () => {
      this.state("stale", "page reconnects");
      // A browser gives up after some answers (503): the watch opens it again.
      if (this.source?.readyState === EventSource.CLOSED) this.close();
    });
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  watch() {
    if (document.hidden) return;
    if (!this.source) this.open();
    const quiet = Date.now() - Math.max(this.heard, this.began);
    if (quiet > (this.heard ? SILENCE : POLL)) this.poll();
  }

  // A proxy that buffers lets nothing through: ask as of old.
  async poll() {
    if (Date.now() - (this.asked ?? 0) < POLL) return;
    this.asked = Date.now();
    try {
      const { answer } = await read("summary");
      this.state("polling", "page asks every 15 s");
      this.hear("snapshot", { summary: answer });
    } catch (error) {
      this.state("stale", `no answer: ${error.message}`);
    }
  }
}
