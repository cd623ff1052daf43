/** The engines: how each stands, what it has in hand, and the button that takes it out of service. */
import { useModal } from '../shared/dialog.js';
import { html, useEffect, useState } from '../shared/dom.js';
import { ask } from '../shared/api.js';
import { UNKNOWN, count, engines, ms, rate, serves, share, span } from './figures.js';
import { standing } from './headline.js';
import { Wide } from './wide.js';
import { say } from './words.js';

const NUMBERS = ['in_flight', 'prefill', 'sequences', 'kv_tokens', 'kv_cache', 'own_queue', 'pace', 'restarts'];
const COLUMNS = ['engine', 'state', ...NUMBERS, 'act'];

export function Engines({ look }) {
  const [asked, setAsked] = useState(null); // the index whose draining waits for a yes
  const [said, setSaid] = useState({ text: '', isBad: false });
  const rows = engines(look);
  const act = async (index, what) => {
    const answer = await ask(`/api/replicas/${index}/${what}`, { method: 'POST' });
    setSaid({ text: (await answer.json()).note, isBad: false });
  };
  const refused = (error) => setSaid({ text: error.message || say('no_answer'), isBad: true });
  return html`<section aria-labelledby="engines-name">
    <h2 id="engines-name">${say('engines')}</h2>
    <div role="status" class="engines-said">
      ${said.text && html`<p class=${`notice ${said.isBad ? 'bad' : ''}`}>${said.text}</p>`}
    </div>
    <${Wide} name=${say('engines')}>
      <table class="engines">
        <thead><tr>
          ${COLUMNS.map((name) => html`
            <th key=${name} scope="col" class=${NUMBERS.includes(name) ? 'n' : ''}>${say(`column_${name}`)}</th>`)}
        </tr></thead>
        <tbody>
          ${rows.map((engine) => html`<${Row} key=${engine.index} engine=${engine} now=${look.at}
            onDrain=${() => setAsked(engine.index)} onUndrain=${() => act(engine.index, 'undrain').catch(refused)} />`)}
        </tbody>
      </table>
    <//>
    <${Drain} rows=${rows} asked=${asked} act=${act} onClose=${() => setAsked(null)} />
  </section>`;
}

function Row({ engine, now, onDrain, onUndrain }) {
  const { index, replica, stage, since, last_failure: failure, phase } = engine;
  const { word, level } = standing(engine);
  const why = [stage, replica && !replica.ready ? replica.reason : ''].find((text) => text && text !== phase);
  const { prefill_tokens: prefill, sequences, kv_tokens: kv } = replica?.ledger ?? {};
  const url = (replica?.url ?? engine.url ?? '').replace(/^https?:\/\//, '');
  const pace = say('prefill_pace', { rate: rate(replica?.pace.prefill_tokens_s) });
  return html`<tr>
    <th scope="row"><span class="index">${index}</span><span class="url">${url}</span></th>
    <td data-name=${say('column_state')}>
      <span class=${`badge ${level}`}>${word}</span>
      ${since !== null && html` <span class="faint">${say('for', { span: span(Math.max(0, now - since)) })}</span>`}
      ${why && why !== failure && html`<span class="more">${why}</span>`}
      ${failure && html`<span class="more">${say('last_failure', { failure })}</span>`}
    </td>
    <${Figure} name="in_flight" value=${count(replica?.in_flight)} />
    <${Figure} name="prefill" value=${count(prefill?.held)} most=${prefill?.cap} held=${prefill?.held} />
    <${Figure} name="sequences" value=${count(sequences?.held)} most=${sequences?.cap} held=${sequences?.held} />
    <${Figure} name="kv_tokens" value=${count(kv?.held)} most=${kv?.cap} held=${kv?.held} />
    <${Figure} name="kv_cache" value=${share(engine.kv_cache)} held=${engine.kv_cache} more=${hits(engine)} />
    <${Figure} name="own_queue" more=${preemptions(engine)}
      value=${`${count(engine.running)} / ${count(engine.waiting)}`} />
    <${Figure} name="pace" value=${ms(replica?.pace.itl_ms)} more=${pace} />
    <${Figure} name="restarts" value=${count(engine.restarts)} />
    <td class="act">
      ${replica && !replica.leaving && (replica.draining
    ? html`<${Act} name="undrain" index=${index} onClick=${onUndrain} />`
    : html`<${Act} name="drain" index=${index} onClick=${onDrain} />`)}
    </td>
  </tr>`;
}

function Act({ name, index, onClick }) {
  return html`<button type="button" onClick=${onClick} aria-label=${say(`${name}_n`, { index })}>${say(name)}</button>`;
}

/** A figure; with `most` the cap under it and a bar of its share, without it `held` is the share itself. */
function Figure({ name, value, most, held, more }) {
  const isKnown = held !== null && held !== undefined && most !== null;
  const part = !isKnown ? null : most === undefined ? held : held / most;
  const width = { inlineSize: `${Math.min(100, 100 * part)}%` };
  return html`<td class="n" data-name=${say(`column_${name}`)}>
    <span>${value}</span>
    ${most !== undefined && html`<span class="more">
      ${most === null ? say('no_cap') : say('of_n', { count: count(most) })}
    </span>`}
    ${more && html`<span class="more">${more}</span>`}
    ${part !== null && html`<span class="bar" aria-hidden="true"><span style=${width}></span></span>`}
  </td>`;
}

const hits = ({ prefix_hit_rate: hit }) => hit !== null && say('prefix_hits', { share: share(hit) });
const preemptions = ({ preemptions: times }) => times > 0 && say('preempted', { count: count(times) });

/** Asks before an engine gets nothing new. */
function Drain({ rows, asked, act, onClose }) {
  const modal = useModal(asked !== null, onClose);
  const [refused, setRefused] = useState('');
  const [isBusy, setBusy] = useState(false);
  useEffect(() => setRefused(''), [asked]);
  const engine = rows.find((one) => one.index === asked);
  const isLast = rows.every((one) => one.index === asked || !serves(one));
  const drain = async () => {
    setBusy(true);
    try {
      await act(asked, 'drain');
      onClose();
    } catch (error) {
      setRefused(error.message || say('no_answer'));
    }
    setBusy(false);
  };
  return html`<dialog ...${modal} aria-labelledby="drain-name">
    <h2 id="drain-name">${say('drain_ask', { index: asked ?? UNKNOWN })}</h2>
    <p>${say('drain_means', { count: count(engine?.replica?.in_flight) })}</p>
    ${isLast && html`<p class="notice warn">${say('drain_last')}</p>`}
    ${refused && html`<p class="notice bad" role="alert">${refused}</p>`}
    <p class="choices">
      <button type="button" onClick=${onClose} autofocus>${say('cancel')}</button>
      <button type="button" class="main" data-act="drain" disabled=${isBusy} onClick=${drain}>${say('drain')}</button>
    </p>
  </dialog>`;
}
