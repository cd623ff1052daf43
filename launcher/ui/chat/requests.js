/** A conversation as a request to /v1/chat/completions, and its streamed answer piece by piece. */
import { ask, events, Broken, Refusal } from '../shared/api.js';

/** Pictures by node: the newest `most` of a conversation, and how many earlier ones are left out. Null: no limit is known. */
export function newest(nodes, most) {
  const kept = new Map();
  let left = most ?? Infinity, leftOut = 0;
  for (const node of [...nodes].reverse()) {
    const pictures = node.pictures ?? [];
    const count = Math.min(left, pictures.length);
    kept.set(node, pictures.slice(pictures.length - count));
    left -= count;
    leftOut += pictures.length - count;
  }
  return { kept, leftOut };
}

/**
 * The messages of a request. Pictures stand before their question, as these models were trained.
 * @param {object[]} nodes from the first to the last
 * @param {Map<object, object[]>} pictures those that go along, by node
 * @param {(picture: object) => Promise<string>} reference the id that a picture has at the gateway
 * @param {string} system what the model is told first; '' for nothing
 */
export async function messages(nodes, pictures, reference, system) {
  const found = system ? [{ role: 'system', content: system }] : [];
  for (const node of nodes) {
    if (node.role === 'assistant') {
      if (node.text) found.push({ role: 'assistant', content: node.text });
    } else if (pictures.get(node)?.length) {
      const parts = [];
      for (const picture of pictures.get(node)) {
        parts.push({ type: 'image_url', image_url: { url: `upload:${await reference(picture)}` } });
      }
      found.push({ role: 'user', content: node.text ? [...parts, { type: 'text', text: node.text }] : parts });
    } else {
      found.push({ role: 'user', content: node.text });
    }
  }
  return found;
}

/** The rest of the request. `goesOn`: the last message is the beginning of the answer that is to be gone on with. */
export function body(model, messages, options, goesOn) {
  return {
    model, messages, stream: true, stream_options: { include_usage: true },
    ...(options.temperature !== '' && { temperature: Number(options.temperature) }),
    ...(options.maxTokens !== '' && { max_tokens: Number(options.maxTokens) }),
    ...(options.thinking !== '' && { enable_thinking: options.thinking === 'on' }),
    ...(goesOn && { continue_final_message: true, add_generation_prompt: false }),
  };
}

/**
 * Asks and reads. `on` is told of what comes: head(response), piece({text, reasoning}), usage(usage), finish(reason).
 * Returns when the answer is complete. Throws Refusal (before the answer or within it), Broken, or AbortError.
 */
export async function stream(request, mode, signal, on) {
  const response = await ask('/v1/chat/completions', { method: 'POST', json: request, headers: { 'x-mode': mode }, signal });
  on.head(response);
  const thinking = new Thinking();
  for await (const { data } of events(response)) {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(chunk.error.code ?? 500, chunk.error);
    if (chunk.usage) on.usage(chunk.usage);
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    const { text, thought } = thinking.part(choice.delta?.content ?? '');
    const reasoning = (choice.delta?.reasoning ?? choice.delta?.reasoning_content ?? '') + thought;
    if (text || reasoning) on.piece({ text, reasoning });
    if (choice.finish_reason) {
      const rest = thinking.take(); // an answer that is whitespace, or a mark's beginning
      if (rest) on.piece({ text: rest, reasoning: '' });
      on.finish(choice.finish_reason);
    }
  }
  throw new Broken('');
}

const OPEN = '<think>', CLOSE = '</think>';

/** Parts the reasoning from an answer that begins with <think>, as models say it where nobody has parted it before. */
export class Thinking {
  constructor() {
    this.held = ''; // what may be the beginning of a mark
    this.state = 'before';
  }

  /** @param {string} content the next piece @returns {{text: string, thought: string}} */
  part(content) {
    if (this.state === 'after') return { text: content, thought: '' };
    this.held += content;
    if (this.state === 'between') return { text: this.first(), thought: '' };
    if (this.state === 'before' && !this.begun()) return { text: this.state === 'after' ? this.take() : '', thought: '' };
    const end = this.held.indexOf(CLOSE);
    if (end >= 0) {
      const thought = this.held.slice(0, end);
      this.held = this.held.slice(end + CLOSE.length);
      this.state = 'between';
      return { text: this.first(), thought };
    }
    const kept = beginning(this.held, CLOSE);
    const thought = this.held.slice(0, this.held.length - kept);
    this.held = this.held.slice(this.held.length - kept);
    return { text: '', thought };
  }

  /** Whether the reasoning has begun; an answer that begins otherwise has none. */
  begun() {
    const start = this.held.trimStart();
    if (start.startsWith(OPEN)) {
      this.held = start.slice(OPEN.length);
      this.state = 'within';
    } else if (!OPEN.startsWith(start)) {
      this.state = 'after';
    }
    return this.state === 'within';
  }

  /** The beginning of what follows the reasoning, without the empty lines between the two. */
  first() {
    this.held = this.held.trimStart();
    if (this.held) this.state = 'after';
    return this.take();
  }

  take() {
    const { held } = this;
    this.held = '';
    return held;
  }
}

/** How many of the last characters may be the beginning of `mark`. */
function beginning(text, mark) {
  for (let count = Math.min(mark.length - 1, text.length); count > 0; count -= 1) {
    if (text.endsWith(mark.slice(0, count))) return count;
  }
  return 0;
}
