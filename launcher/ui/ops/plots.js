/** The nine plots, each with its figures; eight where there are no cards. */
import { html } from '../shared/dom.js';
import { OBJECTIVES_S, UNKNOWN, compact, count, gib, goodput, inHand, ms, rate, share, span, sum } from './figures.js';
import { Plot } from './plot.js';
import { say } from './words.js';

const MOST_LINES = 8; // in one plot

/** @param {{look: object, history: History, objective: number, onObjective: (seconds: number) => void}} props */
export function Plots({ look, history, objective, onObjective }) {
  const minute = look.live?.last_minute;
  const all = [...loadPlots(look), ...pacePlots(minute, objective)];
  const note = html`<${Objective} objective=${objective} onObjective=${onObjective} />`;
  return html`<section aria-labelledby="plots-name">
    <h2 id="plots-name">${say('plots')}</h2>
    <p class="hint">${say('plots_hint')}</p>
    <div class=${`plots of-${all.length}`}>
      ${all.map(({ key, ...one }) => html`<${Plot} key=${key} ...${one} name=${say(key)} now=${look.at}
        history=${history} note=${key === 'goodput' && note} />`)}
    </div>
  </section>`;
}

/** What there is to do, and what it takes up. */
function loadPlots(look) {
  const cards = look.gpus.slice(0, MOST_LINES).map(({ index }) => line(`gpu:${index}`, say('card_n', { index })));
  const engines = look.engines.slice(0, MOST_LINES).map(({ index }) => line(`kv:${index}`, say('engine_n', { index })));
  const prefill = [named('prefill_tokens'), named('prefill_tokens:cap')];
  return [
    { key: 'queue', ...counts, aside: queueAside(look.live?.queue), lines: [named('waiting'), named('in_flight')] },
    { key: 'prefill', ...counts, aside: prefillAside(look), lines: prefill },
    { key: 'kv_cache', ...shares, aside: kvAside(look), lines: engines },
    ...(cards.length ? [{ key: 'gpu_memory', ...shares, aside: cardsAside(look.gpus), lines: cards }] : []),
  ];
}

/** How well it is done. */
function pacePlots(minute, objective) {
  const tokens = [named('output_tokens_s'), named('prompt_tokens_s')];
  const missed = [named('refused_s'), named('evicted_s'), named('failed_s')];
  const good = [line(`good:${objective}`, say('within')), named('served_s')];
  return [
    ...['ttft', 'itl'].map((key) => (
      { key, ...times, aside: say('of_minute'), lines: [line(`${key}_p50_ms`, 'p50'), line(`${key}_p99_ms`, 'p99')] })),
    { key: 'goodput', ...rates, aside: goodputAside(minute, objective), lines: good },
    { key: 'tokens', ...rates, aside: say('of_minute'), lines: tokens },
    { key: 'not_served', ...rates, aside: missedAside(minute), lines: missed },
  ];
}

/** What TTFT has to be within, by the operator's choice. */
function Objective({ objective, onObjective }) {
  const chosen = (event) => onObjective(Number(event.target.value));
  return html`<p class="objective">
    <label>${say('objective')} <select value=${String(objective)} onChange=${chosen}>
      ${OBJECTIVES_S.map((bound) => html`<option key=${bound} value=${String(bound)}>${bound} s</option>`)}
    </select></label>
  </p>`;
}

// How values are written, beside the plot and at its axis.
const counts = { format: count, axis: compact };
const rates = { format: rate, axis: compact };
const shares = { format: share, axis: (value) => `${Math.round(100 * value)} %`, most: 1 };
const times = { format: ms, axis: (value) => (value < 1000 ? `${compact(value)} ms` : `${compact(value / 1000)} s`) };

const line = (name, label) => ({ name, label });
const named = (name) => line(name, say(`line_${name}`));

function queueAside(queue) {
  if (!queue) return UNKNOWN;
  const { count: waiting, oldest_s: oldest, tokens } = queue;
  return waiting ? say('queue_aside', { oldest: span(oldest), tokens: count(tokens) }) : say('waits_none');
}

function prefillAside(look) {
  const { held, cap } = inHand(look, 'prefill_tokens');
  return cap ? say('of_cap', { share: share(held / cap) }) : UNKNOWN;
}

function kvAside(look) {
  const { held, cap } = inHand(look, 'kv_tokens');
  return say('kv_aside', { held: count(held), cap: count(cap) });
}

function cardsAside(cards) {
  const total = (what) => gib(sum(cards.map((one) => one[what])));
  return say('of', { part: total('used_bytes'), all: total('total_bytes') });
}

function goodputAside(minute, objective) {
  const found = goodput(minute, objective);
  if (found === null) return UNKNOWN;
  return say('goodput_aside', { share: share(found.share), good: count(found.good), all: count(found.all) });
}

function missedAside(minute) {
  return minute ? say('missed_aside', { count: count(minute.refused + minute.evicted + minute.failed) }) : UNKNOWN;
}
