/**
 * Where the time of an answer went, from the picture that was chosen to the last character on the screen.
 *
 * Stages, in the order of the waterfall. `upload`, `decode` and `scale` are of pictures and usually over before the
 * question is sent; `wait` is what was left of them then. `network` is what neither the gateway nor the engine accounts for,
 * the page's own work before the request included.
 */
export const STAGES = ['upload', 'decode', 'scale', 'wait', 'network', 'queue', 'first-token', 'stream', 'drawing'];
const KEPT = 500; // answers that the session's figures are of

/** The stages of a Server-Timing header in milliseconds. @returns {Record<string, number>} */
export function serverTiming(header) {
  const found = {};
  for (const part of (header ?? '').split(',')) {
    const match = /^\s*([\w-]+)(?:;[^,]*)??;\s*dur=([\d.]+)/.exec(part);
    if (match) found[match[1]] = Number(match[2]);
  }
  return found;
}

/**
 * The stages of one answer as spans on the page's clock.
 *
 * @param {object} clock milliseconds of performance.now(): asked (the user pressed send), sent (the request left), head,
 *   firstToken, lastByte, painted; `pictures`: [{chosen, uploaded, ms: {decode, scale}}] as they were uploaded.
 * @param {Record<string, number>} server of Server-Timing
 * @returns {{spans: {stage: string, start: number, ms: number}[], totalMs: number, waitMs: number, ttftMs: number}}
 *   `start` counts from `asked`; what was before it is negative. The total is from the first picture chosen for this
 *   question, without the time in which the user was still typing and nothing ran; the wait is from `asked`.
 */
export function account(clock, server) {
  const spans = [];
  const put = (stage, start, ms) => { if (ms > 0.05) spans.push({ stage, start: start - clock.asked, ms }); };
  for (const { chosen, uploaded, ms = {} } of clock.pictures) {
    const decode = (ms.fetch ?? 0) + (ms.decode ?? 0), scale = (ms.scale ?? 0) + (ms.encode ?? 0);
    put('upload', chosen, uploaded - chosen);
    put('decode', uploaded, decode);
    put('scale', uploaded + decode, scale);
  }
  const arrived = Math.max(clock.asked, ...clock.pictures.map(({ uploaded }) => uploaded));
  put('wait', clock.asked, arrived - clock.asked);
  const queue = server.queue ?? 0, media = server.media ?? 0, receive = server.receive ?? 0;
  const decode = server.decode ?? 0, rest = (server.scale ?? 0) + (server.encode ?? 0);
  const share = decode + rest > 0 ? media / Math.max(media, decode + rest) : 0; // they run side by side
  const known = receive + media + queue + (server.engine ?? 0);
  const network = Math.max(0, clock.head - arrived - known) + receive;
  let at = arrived;
  for (const [stage, ms] of [['network', network], ['decode', decode * share], ['scale', rest * share], ['queue', queue]]) {
    put(stage, at, ms);
    at += ms;
  }
  put('first-token', at, clock.firstToken - at);
  put('stream', clock.firstToken, clock.lastByte - clock.firstToken);
  put('drawing', clock.lastByte, clock.painted - clock.lastByte);
  const before = spans.filter((one) => one.start < 0);
  const busy = before.length ? union(before) : 0;
  const waitMs = clock.painted - clock.asked;
  return { spans, totalMs: busy + waitMs, waitMs, ttftMs: clock.firstToken - clock.sent };
}

/** How long at least one of the spans was on before the question was asked. */
function union(spans) {
  let ms = 0, until = -Infinity;
  for (const { start, ms: length } of [...spans].sort((one, other) => one.start - other.start)) {
    const end = Math.min(0, start + length), begin = Math.max(start, until);
    if (end > begin) ms += end - begin;
    until = Math.max(until, end);
  }
  return ms;
}

/** Milliseconds by stage, those of several pictures added up. */
export function byStage(spans) {
  const sums = {};
  for (const { stage, ms } of spans) sums[stage] = (sums[stage] ?? 0) + ms;
  return sums;
}

/** Median and p95 of the answers since the page was opened. */
export class Figures {
  constructor() {
    this.answers = [];
  }

  /** @param {ReturnType<typeof account>} timing */
  note(timing) {
    this.answers.push({ ...byStage(timing.spans), total: timing.totalMs });
    if (this.answers.length > KEPT) this.answers.shift();
  }

  /** @returns {{stage: string, median: number, p95: number, count: number}[]} */
  rows() {
    return [...STAGES, 'total'].flatMap((stage) => {
      const values = this.answers.map((one) => one[stage]).filter((ms) => ms !== undefined).sort((a, b) => a - b);
      return values.length ? [{ stage, median: rank(values, 0.5), p95: rank(values, 0.95), count: values.length }] : [];
    });
  }
}

function rank(sorted, share) {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}
