/**
 * Asks the gateway that this page came from. The key is kept for this tab only and goes nowhere else.
 *
 * What is refused becomes a Refusal with the gateway's own sentence; where nobody answers, a Broken.
 */
const KEY = 'launcher.key';
let heldKey = '';

/** The API key of this tab; '' where there is none. */
export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? heldKey;
  } catch {
    return heldKey;
  }
}

/** Keeps the key for this tab; '' forgets it. */
export function setKey(value) {
  heldKey = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch { /* it holds until the page is left */ }
}

/** The gateway or an engine has refused: `message` is its sentence, '' where it has none; `reason` a word to compare. */
export class Refusal extends Error {
  /** @param {number} status @param {{message?: string, reason?: string, src?: string, param?: string}} error */
  constructor(status, error, { retryMs = null, requestId = '' } = {}) {
    super(error.message ?? '');
    this.status = status;
    this.reason = error.reason ?? '';
    this.src = error.src ?? '';
    this.param = error.param ?? null;
    this.retryMs = retryMs; // when to come again, where it says so
    this.requestId = requestId;
  }
}

/** Nobody answered, or the answer ended before its end. */
export class Broken extends Error {}

/** The headers that every request of ours carries. @returns {Record<string, string>} */
export function headers(more = {}) {
  const own = key();
  return own ? { authorization: `Bearer ${own}`, ...more } : { ...more };
}

/**
 * One request; the answer's head has come when this returns. `json` is sent as the body.
 * @returns {Promise<Response>} of a status below 400. Throws Refusal, Broken, or the AbortError of `signal`.
 */
export async function ask(path, { method = 'GET', json, body, headers: more = {}, signal } = {}) {
  const sent = headers(json === undefined ? more : { 'content-type': 'application/json', ...more });
  let response;
  try {
    response = await fetch(path, {
      method, signal, headers: sent, body: json === undefined ? body : JSON.stringify(json),
      cache: 'no-store', credentials: 'same-origin', redirect: 'error',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Broken('', { cause: error });
  }
  if (response.ok) return response;
  throw refusal(response.status, await response.text().catch(() => ''), (name) => response.headers.get(name));
}

/** What a refusal says. `header` looks one up by name. */
export function refusal(status, text, header) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch { /* not of the gateway's own making: a proxy's page, say */ }
  const seconds = Number.parseFloat(header('retry-after') ?? '');
  const ms = Number.parseFloat(header('retry-after-ms') ?? '');
  const retryMs = Number.isFinite(ms) ? ms : Number.isFinite(seconds) ? seconds * 1000 : null;
  return new Refusal(status, typeof error === 'string' ? { message: error } : error, {
    retryMs, requestId: header('x-request-id') ?? '',
  });
}

/**
 * The events of a text/event-stream, as they come. Ends with the stream; throws Broken where it is cut off.
 * @param {Response} response
 * @returns {AsyncGenerator<{event: string, data: string}>}
 */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await next(reader);
      if (done) return;
      rest += value;
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const found = event(block);
        if (found !== null) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading ends the request too
  }
}

async function next(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Broken('', { cause: error });
  }
}

function event(block) {
  let name = 'message';
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
    else if (line.startsWith('event:')) name = line.slice(6).trim();
  }
  return data.length ? { event: name, data: data.join('\n') } : null;
}
