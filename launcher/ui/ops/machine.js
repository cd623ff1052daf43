/** The cards of the machine, and the ends of engines that nobody asked for. */
import { html } from '../shared/dom.js';
import { UNKNOWN, clock, gib, share, span } from './figures.js';
import { Wide } from './wide.js';
import { say } from './words.js';

const NUMBERS = ['memory', 'used', 'busy', 'trend', 'full_in'];
const OPEN_ENDS = 4; // the others are folded away

export function Cards({ gpus }) {
  return html`<section aria-labelledby="cards-name">
    <h2 id="cards-name">${say('cards')}</h2>
    <${Wide} name=${say('cards')}>
      <table class="cards">
        <thead><tr>
          <th scope="col">${say('column_card')}</th>
          ${NUMBERS.map((name) => html`<th key=${name} scope="col" class="n">${say(`column_${name}`)}</th>`)}
        </tr></thead>
        <tbody>
          ${gpus.map((card) => html`<tr key=${card.index}>
            <th scope="row">${card.index} <span class="faint">${card.name}</span></th>
            <td class="n">${say('of', { part: gib(card.used_bytes), all: gib(card.total_bytes) })}</td>
            <td class="n">${share(card.used_bytes / card.total_bytes)}</td>
            <td class="n">${card.utilization === null ? UNKNOWN : `${card.utilization} %`}</td>
            <td class="n">${trend(card.growth_bytes_per_s)}</td>
            <td class=${`n ${card.warning ? 'warn' : ''}`}>${span(card.full_in_s)}</td>
          </tr>`)}
        </tbody>
      </table>
    <//>
  </section>`;
}

function trend(bytesPerS) {
  if (bytesPerS === null) return UNKNOWN;
  const perMinute = Math.round((60 * bytesPerS) / 2 ** 20);
  return `${perMinute > 0 ? '+' : perMinute < 0 ? '−' : '±'}${Math.abs(perMinute)} MiB/min`;
}

/** The last ends, the newest first. The server keeps 20. */
export function Ends({ ends, now }) {
  const newest = [...ends].reverse();
  const earlier = newest.slice(OPEN_ENDS);
  return html`<section aria-labelledby="ends-name">
    <h2 id="ends-name">${say('ends')}</h2>
    ${ends.length === 0 && html`<p class="faint">${say('ends_none')}</p>`}
    ${ends.length > 0 && html`<${EndList} ends=${newest.slice(0, OPEN_ENDS)} now=${now} />`}
    ${earlier.length > 0 && html`<details>
      <summary>${say('ends_earlier', { count: earlier.length })}</summary>
      <${EndList} ends=${earlier} now=${now} />
    </details>`}
  </section>`;
}

function EndList({ ends, now }) {
  return html`<ol class="ends">
    ${ends.map((end) => html`<li key=${`${end.at} ${end.engine}`}>
      <time datetime=${new Date(1000 * end.at).toISOString()}>${clock(end.at, now)}</time>
      <strong>${say('end_of', { index: end.engine, cause: say(`cause_${end.cause}`) })}</strong>
      <span class="reason">${end.reason}</span>
      ${end.remedy && html`<span class="remedy">${end.remedy}</span>`}
    </li>`)}
  </ol>`;
}
