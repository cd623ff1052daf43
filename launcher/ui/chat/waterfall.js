/** Under each answer: where its time went, one bar a stage on one axis. And the same of the whole session, as a table. */
import { html } from '../shared/dom.js';
import { choose, setting } from '../shared/settings.js';
import { duration, number } from '../shared/words.js';
import { t } from './words.js';

const SHORT_MS = 50; // a stream that came in one go tells no rate

/** @param {{node: object}} props an answer with `timing` as timing.js accounts for it */
export function Waterfall({ node }) {
  const { timing } = node;
  const { bars, writing } = onAxis(timing.spans);
  return html`
    <figure class="waterfall">
      <details open=${setting('waterfall', 'open') === 'open'} onToggle=${remember}>
        <summary><span class="total" data-ms=${timing.totalMs.toFixed(1)}>${summary(node)}</span></summary>
        <ol aria-label=${t('waterfall')}>${bars.map((bar) => html`<${Bar} bar=${bar} />`)}</ol>
        ${writing > 1 && html`<p class="faint">${t('typed', { ms: duration(writing) })}</p>`}
      </details>
    </figure>`;
}

function remember(event) {
  choose('waterfall', event.target.open ? '' : 'closed');
}

function summary({ timing, usage }) {
  const values = { total: duration(timing.totalMs), ttft: duration(timing.ttftMs) };
  const stream = timing.spans.find((one) => one.stage === 'stream')?.ms;
  const tokens = usage?.completion_tokens;
  if (!(tokens > 1) || !(stream > SHORT_MS)) return t('summary', values);
  return t('summaryRate', { ...values, tokens: number(tokens), rate: number((tokens - 1) / (stream / 1000), 1) });
}

function Bar({ bar }) {
  const said = `${t(bar.stage)}: ${duration(bar.ms)}. ${t(`${bar.stage}.why`)}`;
  return html`
    <li data-stage=${bar.stage} data-ms=${bar.ms.toFixed(1)} tabindex="0" title=${said} aria-label=${said}>
      <span class="stage">${t(bar.stage)}</span>
      <span class="track"><span class="bar" style=${{ left: `${bar.left}%`, width: `${bar.width}%` }}></span></span>
      <span class="ms">${duration(bar.ms)}</span>
    </li>`;
}

/** The spans in percent of the axis, without the time in which the user was writing and nothing ran. */
function onAxis(spans) {
  const before = spans.filter((one) => one.start < 0);
  const writing = before.length ? Math.max(0, -Math.max(...before.map((one) => one.start + one.ms))) : 0;
  const placed = spans.map((one) => (one.start < 0 ? { ...one, start: one.start + writing } : one));
  const first = Math.min(...placed.map((one) => one.start));
  const whole = Math.max(...placed.map((one) => one.start + one.ms)) - first || 1;
  const bars = placed.map((one) => {
    const left = ((one.start - first) / whole) * 100;
    return { ...one, left, width: Math.min(100 - left, Math.max(0.4, (one.ms / whole) * 100)) };
  });
  return { bars, writing };
}

/** Median and p95 of each stage. @param {{figures: import('./timing.js').Figures}} props */
export function SessionTable({ figures }) {
  const rows = figures.rows();
  if (!rows.length) return html`<p>${t('figuresNone')}</p>`;
  return html`
    <p>${t('figuresHint')}</p>
    <div class="sideways" tabindex="0" role="region" aria-label=${t('figures')}>
      <table>
        <thead><tr>
          <th scope="col">${t('stage')}</th><th scope="col">${t('median')}</th><th scope="col">${t('p95')}</th>
          <th scope="col">${t('answers')}</th><th scope="col">${t('explanation')}</th>
        </tr></thead>
        <tbody>${rows.map((row) => html`
          <tr data-stage=${row.stage}>
            <th scope="row">${t(row.stage)}</th><td>${duration(row.median)}</td><td>${duration(row.p95)}</td>
            <td>${number(row.count)}</td><td class="faint">${t(`${row.stage}.why`)}</td>
          </tr>`)}
        </tbody>
      </table>
    </div>`;
}
