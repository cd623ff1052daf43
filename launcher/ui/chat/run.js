/** One answer on its way: asks, passes the pieces on to whoever draws, accounts for the time, and says how it ended. */
import { Broken, Refusal } from '../shared/api.js';
import { setting } from '../shared/settings.js';
import { body, messages, newest, stream } from './requests.js';
import { account, byStage, serverTiming } from './timing.js';
import * as tree from './tree.js';

const SAVE_EVERY_MS = 2000; // while an answer comes
const GONE = 'upload_unknown'; // the gateway's word for a picture that it keeps no longer
const BACKOFF_MS = 200, LONGEST_BACKOFF_MS = 30_000; // waited at least, half as long again with each try

/** A word for what nobody has named: '' for a server that has refused in a sentence alone. */
function kindOf(error, hasBegun) {
  if (error instanceof Broken) return hasBegun ? 'broken' : 'unreachable';
  return error instanceof Refusal ? '' : 'bug';
}

function backoff(tries) {
  return Math.min(LONGEST_BACKOFF_MS, BACKOFF_MS * 1.5 ** tries);
}

export class Run {
  /** @param {import('./chat.js').Chat} chat @param {boolean} goesOn whether the answer's beginning is there already */
  constructor(chat, conversation, node, goesOn) {
    Object.assign(this, { chat, conversation, node, goesOn, used: [], server: {}, savedAt: performance.now() });
    this.abort = new AbortController();
    this.clock = { asked: performance.now(), sent: 0, head: 0, firstToken: 0, lastByte: 0, painted: 0, pictures: [] };
  }

  stop() {
    this.abort.abort();
  }

  async whole() {
    const { node, chat } = this;
    let end = { state: 'done' };
    try {
      await this.once().catch((error) => {
        if (error.reason !== GONE) throw error;
        chat.uploads.forget();
        return this.once();
      });
    } catch (error) {
      end = this.failed(error);
    }
    this.clock.lastByte = performance.now();
    await chat.sinks.get(node.id)?.end();
    await painted();
    this.clock.painted = performance.now();
    Object.assign(node, end); // not before it is drawn: whoever sees it done sees all of it
    if (node.state === 'done') this.tell();
    chat.said(node);
    if (node.error?.retryAt && setting('retry') === 'on') chat.schedule(node, this.conversation);
  }

  async once() {
    const { chat, node, clock, conversation } = this;
    this.used = [];
    const nodes = tree.pathTo(conversation, this.goesOn ? node : conversation.nodes[node.parent]);
    const { kept, leftOut } = newest(nodes, chat.about?.images.max_count);
    node.leftOut = leftOut;
    const reference = (picture) => chat.reference(picture, this.used);
    const list = await this.orStopped(messages(nodes, kept, reference, chat.options.system));
    clock.sent = performance.now();
    const request = body(chat.about?.model ?? '', list, chat.options, this.goesOn);
    await stream(request, node.mode, this.abort.signal, {
      head: (response) => this.head(response),
      piece: (piece) => this.piece(piece),
      usage: (usage) => { node.usage = usage; },
      finish: (reason) => { node.finish = reason; },
    });
  }

  /** What uploads take cannot be aborted from here, only no longer be waited for. */
  orStopped(promise) {
    return new Promise((resolve, reject) => {
      this.abort.signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError')), { once: true });
      promise.then(resolve, reject);
    });
  }

  head(response) {
    this.clock.head = performance.now();
    this.server = serverTiming(response.headers.get('server-timing'));
    this.node.requestId = response.headers.get('x-request-id') ?? '';
  }

  piece({ text, reasoning }) {
    const { node, chat, clock } = this;
    if (!clock.firstToken) {
      clock.firstToken = performance.now();
      node.state = 'streaming';
      chat.said(node);
      chat.changed();
      this.firstPaint = painted();
    }
    node.text += text;
    node.reasoning += reasoning;
    chat.sinks.get(node.id)?.piece({ text, reasoning });
    if (performance.now() - this.savedAt > SAVE_EVERY_MS) {
      this.savedAt = performance.now();
      chat.save(this.conversation);
    }
  }

  /** What an answer that failed ends as. @returns {{state: string, error?: object}} */
  failed(error) {
    const { node } = this;
    const hasBegun = node.text !== '' || node.reasoning !== '';
    if (error.name === 'AbortError') return { state: 'stopped' };
    const { status = 0, reason = '', message = '', retryMs = null, requestId = '' } = error;
    if (status === 401) this.chat.lock(message);
    if (!(error instanceof Broken || error instanceof Refusal) && !message) console.error(error);
    const told = {
      status, message, requestId, retryAt: retryMs === null ? 0 : Date.now() + Math.max(retryMs, backoff(node.tries ?? 0)),
      reason: reason || kindOf(error, hasBegun),
    };
    return { state: hasBegun ? 'broken' : 'refused', error: told };
  }

  /** Accounts for the time of an answer that is complete. */
  async tell() {
    const { node, chat, clock } = this;
    if (!clock.firstToken) clock.firstToken = clock.lastByte; // an answer without a word
    clock.pictures = this.used.filter((upload) => upload.clock?.uploaded).map((upload) => upload.clock);
    for (const upload of this.used) upload.clock = null; // a later question about it sends nothing again
    const timing = account(clock, this.server);
    node.timing = timing;
    chat.figures.note(timing);
    document.dispatchEvent(new CustomEvent('launcher:answer', {
      detail: {
        id: node.id, stages: byStage(timing.spans), total_ms: timing.totalMs, wait_ms: timing.waitMs, ttft_ms: timing.ttftMs,
        first_byte_at: clock.firstToken, first_paint_at: await this.firstPaint,
      },
    }));
  }
}

/** When what has been drawn now is on the screen; at once where nothing is drawn, as in a tab that is not seen. */
function painted() {
  if (document.visibilityState !== 'visible') return Promise.resolve(performance.now());
  return new Promise((resolve) => {
    const channel = new MessageChannel(); // its message comes after the frame's paint
    const done = () => {
      clearTimeout(timer);
      channel.port1.close();
      resolve(performance.now());
    };
    const timer = setTimeout(done, 1000); // frames have stopped
    channel.port1.onmessage = done;
    requestAnimationFrame(() => channel.port2.postMessage(0));
  });
}
