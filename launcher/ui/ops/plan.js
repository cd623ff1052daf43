/** The plan that the deployment runs by: its verdict, the memory, what it buys, what could be changed. */
import { html, useEffect, useState } from '../shared/dom.js';
import { ask } from '../shared/api.js';
import { UNKNOWN, count, gib } from './figures.js';
import { Wide } from './wide.js';
import { PLAN_LINES, say } from './words.js';

const LEVELS = { fits: 'good', does_not_fit: 'bad', unknown: 'warn', error: 'bad', warning: 'warn', note: '' };

/** @param {{asked: number}} props the plan is asked for when `asked` changes: the stream has begun anew. */
export function Plan({ asked }) {
  const [plan, setPlan] = useState(null);
  const [why, setWhy] = useState('');
  useEffect(() => {
    const ending = new AbortController();
    ask('/api/plan', { signal: ending.signal }).then((answer) => answer.json())
      .then((found) => { setPlan(found); setWhy(''); })
      .catch((error) => { if (!ending.signal.aborted) setWhy(error.message || say('no_answer')); });
    return () => ending.abort();
  }, [asked]);
  return html`<section aria-labelledby="plan-name" class="plan">
    <h2 id="plan-name">${say('plan')}</h2>
    ${why && html`<p class="faint">${why}</p>`}
    ${plan && html`
      <p><${Badge} of="verdict" word=${plan.verdict} /> ${plan.summary}</p>
      <${Findings} findings=${plan.findings} />
      <div class="pair"><${Memory} plan=${plan} /><${Images} images=${plan.images} /></div>
      <${Settings} settings=${plan.settings} />
      <${Commands} commands=${plan.commands} />`}
  </section>`;
}

function Badge({ of, word }) {
  return html`<span class=${`badge ${LEVELS[word]}`}>${say(`${of}_${word}`)}</span>`;
}

function Findings({ findings }) {
  return html`<ul class="findings">
    ${findings.map((one, i) => html`<li key=${i}>
      <${Badge} of="severity" word=${one.severity} />
      <span>${one.severity !== 'note' && html`<code>${one.key}</code> `}${one.message}
        ${one.remedy && html`<span class="remedy">${one.remedy}</span>`}</span>
    </li>`)}
  </ul>`;
}

/** The lines of a card's memory; one column for each pipeline stage. */
function Memory({ plan }) {
  const { budgets, kv } = plan;
  if (budgets.length === 0) return null;
  const { tokens, max_len: longest, requests_at_full_length: atOnce } = kv;
  const lines = PLAN_LINES.filter((name) => name === 'kv' || budgets.some((stage) => stage[name]));
  const values = (name) => budgets.map((stage) => (name === 'kv' && tokens === null ? null : stage[name]));
  return html`<${Wide} name=${say('plan_memory')}><table>
    <caption>${say('plan_memory')}</caption>
    <thead class=${budgets.length > 1 ? '' : 'out-of-sight'}><tr>
      <th scope="col">${say('plan_line')}</th>
      ${budgets.map(({ stage }) => html`<th key=${stage} scope="col" class="n">${say('plan_stage', { stage })}</th>`)}
    </tr></thead>
    <tbody>
      ${[...lines, 'requested', 'visible'].map((name) => html`
        <${Line} key=${name} name=${name} values=${values(name)} />`)}
    </tbody>
    <tfoot>
      <tr>
        <th scope="row">${say('plan_kv_tokens')}</th>
        <td class="n" colspan=${budgets.length}>${count(tokens)}</td>
      </tr>
      <tr>
        <th scope="row">${say('plan_full_length', { tokens: count(longest) })}</th>
        <td class="n" colspan=${budgets.length}>${atOnce === null ? UNKNOWN : atOnce.toFixed(1)}</td>
      </tr>
    </tfoot>
  </table><//>`;
}

function Line({ name, values }) {
  return html`<tr class=${name === 'requested' ? 'total' : ''}>
    <th scope="row">${say(`plan_${name}`)}</th>
    ${values.map((value, i) => html`<td key=${i} class="n">${value ? size(value) : UNKNOWN}</td>`)}
  </tr>`;
}

const size = (value) => (Math.abs(value) < 2 ** 30 / 10 ? `${Math.round(value / 2 ** 20)} MiB` : gib(value));

function Images({ images }) {
  if (images.length === 0) return null;
  return html`<${Wide} name=${say('plan_images')}><table>
    <caption>${say('plan_images')}</caption>
    <thead><tr>
      ${heads('sent', 'brought_to', 'seen')}
      <th scope="col" class="n">${say('column_tokens')}</th>
    </tr></thead>
    <tbody>
      ${images.map((one) => html`<tr key=${`${one.width}×${one.height}`}>
        <th scope="row">${one.width}×${one.height}</th>
        <td>${one.sent.join('×')}</td>
        <td>${one.seen.join('×')}</td>
        <td class="n">${count(one.tokens)}</td>
      </tr>`)}
    </tbody>
  </table><//>`;
}

function heads(...names) {
  return names.map((name) => html`<th key=${name} scope="col">${say(`column_${name}`)}</th>`);
}

/** What the profile says itself; defaults are left out. */
function Settings({ settings }) {
  const rows = Object.entries(settings).filter(([, { origin }]) => origin !== 'default');
  return html`<details class="settings">
    <summary>${say('plan_settings', { count: rows.length })}</summary>
    <${Wide} name=${say('plan_settings', { count: rows.length })}><table>
      <thead><tr>${heads('key', 'value', 'from')}</tr></thead>
      <tbody>
        ${rows.map(([key, { value, origin }]) => html`<tr key=${key}>
          <th scope="row"><code>${key}</code></th>
          <td>${typeof value === 'string' ? value : JSON.stringify(value)}</td>
          <td class="faint">${origin}</td>
        </tr>`)}
      </tbody>
    </table><//>
  </details>`;
}

function Commands({ commands }) {
  if (commands.length === 0) return null;
  const notes = [...new Set(commands.flatMap((one) => one.notes ?? []))];
  return html`<details>
    <summary>${say('plan_commands', { count: commands.length })}</summary>
    ${commands.map((one, i) => html`<div key=${i}>
      <h3>${say('plan_replica', { replica: one.replica, cards: one.gpus.join(', ') || UNKNOWN })}</h3>
      ${one.argv ? html`<pre>${one.shell}</pre>` : html`<p class="notice bad">${one.problem} ${one.hint}</p>`}
    </div>`)}
    <ul>${notes.map((note) => html`<li key=${note}>${note}</li>`)}</ul>
  </details>`;
}
