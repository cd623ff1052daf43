/** Reads /api/events for as long as the page is open, and tells how that goes. Draws nothing. */
import { Broken, Refusal, ask, events } from '../shared/api.js';

const WAITS_S = [1, 2, 4, 8, 15]; // before the next try; the last one again and again
const SILENCE_MS = 10_000; // a look comes each second: a connection that is silent for so long is no connection
const UNSEEN_MS = 300_000; // a hidden tab reads on for so long, so that its plots have no gap

/**
 * How the stream goes. `kind`:
 * - `opening`: the first look is waited for; `live`: looks come; `paused`: the tab is hidden.
 * - `broken`: it comes again by itself at `retryAt` (of performance.now()); `why` is a sentence, where there is one.
 * - `refused`: `why` is the gateway's sentence, `reason` its word; it waits for another key.
 * @typedef {{kind: string, why?: string, reason?: string, status?: number, retryAt?: number}} Going
 */

/** One stream at a time. `onLook` is told each look, `onGoing` each change of how it goes. */
export class Stream {
  /** @param {{onLook: (look: object) => void, onGoing: (going: Going) => void}} told */
  constructor({ onLook, onGoing }) {
    this.onLook = onLook;
    this.onGoing = onGoing;
    this.reading = null; // the AbortController of the one loop that runs
    this.failures = 0; // tries since the last look
    this.unseen = null;
    this.isPaused = false;
    this.seen = () => this.visibility();
    document.addEventListener('visibilitychange', this.seen);
  }

  /** Begins, or begins anew at once. */
  start() {
    this.stop();
    this.isPaused = false;
    this.reading = new AbortController();
    this.failures = 0;
    this.read(this.reading.signal);
  }

  stop() {
    this.reading?.abort();
    this.reading = null;
  }

  /** Ends it for good. */
  close() {
    this.stop();
    clearTimeout(this.unseen);
    document.removeEventListener('visibilitychange', this.seen);
  }

  visibility() {
    clearTimeout(this.unseen);
    if (document.hidden) {
      this.unseen = setTimeout(() => this.pause(), UNSEEN_MS);
    } else if (this.isPaused) {
      this.start();
    }
  }

  pause() {
    if (this.reading === null) return;
    this.isPaused = true;
    this.stop();
    this.onGoing({ kind: 'paused' });
  }

  /** Until `signal`, or until another key is needed. */
  async read(signal) {
    this.onGoing({ kind: 'opening' });
    while (!signal.aborted) {
      let why = null;
      try {
        await this.once(signal);
      } catch (error) {
        why = error;
        if (!(error instanceof Refusal || error instanceof Broken || error.name === 'AbortError')) console.error(error);
      }
      if (signal.aborted) return;
      if (why instanceof Refusal && (why.status === 401 || why.status === 403)) {
        this.reading = null;
        this.onGoing({ kind: 'refused', why: why.message, reason: why.reason, status: why.status });
        return;
      }
      await this.wait(why, signal);
    }
  }

  /** One connection to its end. The server ends it by itself now and then: that is no failure. */
  async once(signal) {
    const own = new AbortController();
    const end = () => own.abort();
    signal.addEventListener('abort', end);
    let silence = setTimeout(end, SILENCE_MS);
    try {
      const response = await ask('/api/events', { headers: { accept: 'text/event-stream' }, signal: own.signal });
      for await (const { event, data } of events(response)) {
        clearTimeout(silence);
        silence = setTimeout(end, SILENCE_MS);
        if (event === 'watch' && !signal.aborted) this.looked(JSON.parse(data));
      }
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', end);
      own.abort();
    }
  }

  looked(look) {
    this.failures = 0;
    this.onGoing({ kind: 'live' });
    this.onLook(look);
  }

  /** @param {Error | null} why null: it ended well, so the next try is quiet unless it fails. */
  async wait(why, signal) {
    const waitS = WAITS_S[Math.min(this.failures, WAITS_S.length - 1)];
    const waitMs = Math.max(1000 * waitS, why?.retryMs ?? 0);
    if (why !== null || this.failures > 0) {
      const said = why instanceof Refusal ? why.message : '';
      this.onGoing({ kind: 'broken', why: said, retryAt: performance.now() + waitMs });
    }
    this.failures += 1;
    await new Promise((go) => {
      const timer = setTimeout(go, waitMs);
      signal.addEventListener('abort', () => { clearTimeout(timer); go(); }, { once: true });
    });
  }
}

/** Calls `draw` soon, and never more than once in `everyMs`. @returns {() => void} asks for it. */
export function paced(draw, everyMs = 1000) {
  let due = null;
  let last = -Infinity;
  return () => {
    if (due !== null) return;
    due = setTimeout(() => {
      due = null;
      last = performance.now();
      draw();
    }, Math.max(0, last + everyMs - performance.now()));
  };
}
