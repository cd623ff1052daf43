/** Who waits, what became of requests, and why some were not served. */
import { html } from '../shared/dom.js';
import { UNKNOWN, count, sum } from './figures.js';
import { Wide } from './wide.js';
import { REASONS, say } from './words.js';

const MOST_REASONS = 16; // rows; what is rarer is added up
const OUTCOMES = ['served', 'refused', 'evicted', 'cancelled', 'failed', 'resumed'];

export function Queue({ queue }) {
  return html`<section aria-labelledby="queue-name">
    <h2 id="queue-name">${say('waiting')}</h2>
    <div class="pair">
      <${Counts} name=${say('by_priority')} counts=${queue?.by_priority ?? {}} label=${priorities} />
      <${Counts} name=${say('by_length')} counts=${queue?.by_length ?? {}} label=${lengths} />
    </div>
  </section>`;
}

const priorities = (one) => say(`priority_${one}`);
const lengths = (group) => say('tokens_n', { group: group.replace('<=', '≤ ').replace('>', '> ') });

/** Counts with bars, each of the largest. */
function Counts({ name, counts, label }) {
  const rows = Object.entries(counts);
  const most = Math.max(1, ...rows.map(([, value]) => value));
  const width = (value) => ({ inlineSize: `${(100 * value) / most}%` });
  return html`<table class="counts">
    <caption>${name}</caption>
    <thead class="out-of-sight"><tr><th scope="col">${name}</th><th scope="col">${say('line_waiting')}</th></tr></thead>
    <tbody>
      ${rows.map(([key, value]) => html`<tr key=${key}>
        <th scope="row">${label(key)}</th>
        <td class="n">${count(value)}</td>
        <td aria-hidden="true"><span class="bar"><span style=${width(value)}></span></span></td>
      </tr>`)}
    </tbody>
  </table>`;
}

export function Outcomes({ live }) {
  const { totals = {}, last_minute: minute = {} } = live ?? {};
  return html`<section aria-labelledby="outcomes-name">
    <h2 id="outcomes-name">${say('outcomes')}</h2>
    <${Wide} name=${say('outcomes')}>
      <table class="outcomes">
        <thead><tr>
          <th scope="col">${say('column_outcome')}</th>
          <th scope="col" class="n">${say('column_minute')}</th>
          <th scope="col" class="n">${say('column_total')}</th>
        </tr></thead>
        <tbody>
          ${OUTCOMES.map((one) => html`<tr key=${one}>
            <th scope="row">${say(`outcome_${one}`)}</th>
            <td class="n">${count(minute[one])}</td>
            <td class="n">${count(totals[one])}</td>
          </tr>`)}
        </tbody>
        <${Reasons} kind="refusals" minute=${minute.refusals} total=${totals.refusals} />
        <${Reasons} kind="evictions" minute=${minute.evictions} total=${totals.evictions} />
      </table>
    <//>
  </section>`;
}

/** The reasons of one kind, the most frequent first. Refusals are those of all routes. */
function Reasons({ kind, minute = {}, total = {} }) {
  const found = Object.entries(total).sort((one, other) => other[1] - one[1]);
  const rest = found.slice(MOST_REASONS);
  const rows = found.slice(0, MOST_REASONS).map(([reason, times]) => [reason, minute[reason] ?? 0, times]);
  return html`<tbody>
    <tr key="" class="head"><th scope="rowgroup" colspan="3">${say(kind)}</th></tr>
    ${rows.length === 0 && html`<tr key="none"><td colspan="3" class="faint">${say('none')}</td></tr>`}
    ${rows.map(([reason, now, times]) => html`<tr key=${reason}>
      <th scope="row">
        <code>${reason}</code> ${reason in REASONS && html`<span class="faint">${say(`reason_${reason}`)}</span>`}
      </th>
      <td class="n">${count(now)}</td>
      <td class="n">${count(times)}</td>
    </tr>`)}
    ${rest.length > 0 && html`<tr key="rest">
      <th scope="row">${say('others', { count: rest.length })}</th><td class="n">${UNKNOWN}</td>
      <td class="n">${count(sum(rest.map(([, times]) => times)))}</td>
    </tr>`}
  </tbody>`;
}
