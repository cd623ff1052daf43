/** Figures of one look, and how they are written. Pure: what is not known is null, and written as a dash. */
import { bytes, duration, language, number } from '../shared/words.js';

export const UNKNOWN = '–';
export const OBJECTIVES_S = [0.2, 0.5, 1, 2, 5]; // bounds of the gateway's own buckets
const HELD = ['prefill_tokens', 'sequences', 'kv_tokens'];

/** The engines by index, each with its replica; those that run elsewhere are among them. */
export function engines(look) {
  const replicas = new Map((look.live?.replicas ?? []).map((one) => [one.index, one]));
  const rows = look.engines.map((engine) => ({ ...engine, replica: replicas.get(engine.index) ?? null }));
  return rows.sort((one, other) => one.index - other.index);
}

/** Whether the gateway sends new requests to it. */
export function serves({ replica }) {
  return replica !== null && replica.ready && !replica.draining && !replica.leaving;
}

/** What the replicas that are well have in hand, together. `cap` is null where one of them has none. */
export function inHand(look, what) {
  const ledgers = (look.live?.replicas ?? []).filter((one) => one.ready).map((one) => one.ledger[what]);
  if (look.live === null || ledgers.length === 0) return { held: null, cap: null };
  const caps = ledgers.map((one) => one.cap);
  return { held: sum(ledgers.map((one) => one.held)), cap: caps.includes(null) ? null : sum(caps) };
}

/**
 * Goodput of the last minute: streams whose first piece came within the objective. Of `all`: every stream that had a
 * first piece, and every request that was refused, evicted or failed.
 * @returns {{good: number, all: number, share: number | null, perS: number | null} | null}
 */
export function goodput(minute, objectiveS) {
  const within = minute?.ttft_within?.find(([bound]) => bound === objectiveS);
  if (!within) return null;
  const good = within[1];
  const all = minute.ttft_within.at(-1)[1] + minute.refused + minute.evicted + minute.failed;
  return { good, all, share: all ? good / all : null, perS: perSecond(good, minute) };
}

/** A count of the last minute as a rate. */
export function perSecond(count, minute) {
  return minute && count !== undefined && minute.seconds > 0 ? count / minute.seconds : null;
}

/** What the plots keep of a look: name → value. */
export function row(look) {
  const { live } = look;
  const minute = live?.last_minute;
  const found = { waiting: live?.queue.count, in_flight: live?.in_flight };
  for (const what of HELD) {
    const { held, cap } = inHand(look, what);
    found[what] = held;
    found[`${what}:cap`] = cap;
  }
  for (const engine of look.engines) found[`kv:${engine.index}`] = engine.kv_cache;
  for (const card of look.gpus) found[`gpu:${card.index}`] = card.used_bytes / card.total_bytes;
  for (const name of ['ttft_p50_ms', 'ttft_p99_ms', 'itl_p50_ms', 'itl_p99_ms', 'prompt_tokens_s', 'output_tokens_s']) {
    found[name] = minute?.[name];
  }
  for (const name of ['served', 'refused', 'evicted', 'failed']) found[`${name}_s`] = perSecond(minute?.[name], minute);
  for (const bound of OBJECTIVES_S) found[`good:${bound}`] = goodput(minute, bound)?.perS;
  return found;
}

export function sum(values) {
  return values.reduce((all, one) => all + one, 0);
}

// How they are written.

const told = (write) => (value) => (value === null || value === undefined ? UNKNOWN : write(value));

export const count = told((value) => number(value));
export const ms = told((value) => duration(value));
export const share = told((value) => `${number(100 * value, value > 0.9 && value < 1 ? 1 : 0)} %`);
export const rate = told((value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0));
export const size = told((value) => bytes(value));
/** Bytes in GiB, all with one decimal, so that they compare. */
export const gib = told((value) => `${(value / 2 ** 30).toFixed(1)} GiB`);

/** Seconds as people say them: 40 ms, 12 s, 3 min, 2 h 5 min, 3 d 4 h. */
export const span = told((seconds) => {
  if (seconds < 60) return seconds < 10 ? duration(1000 * seconds) : `${number(Math.floor(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${number(Math.floor(hours / 24))} d ${hours % 24} h`;
});

/** An axis has room for little: 900, 16k, 1.2M. */
export function compact(value) {
  if (value >= 1e6) return `${number(value / 1e6, 1)}M`;
  return value >= 1e4 ? `${number(value / 1e3, 1)}k` : number(value, value < 10 ? 2 : 0);
}

/** A moment of the epoch's seconds: the time of day, with the day where that is not today. */
export function clock(seconds, now) {
  const when = new Date(1000 * seconds);
  const isToday = when.toDateString() === new Date(1000 * now).toDateString();
  const day = isToday ? {} : { month: 'short', day: 'numeric' };
  const time = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' };
  return when.toLocaleString(language(), { ...day, ...time });
}
