/** What went wrong with an answer: the sentence, and what can be done about it. */
import { html, useEffect, useReducer } from '../shared/dom.js';
import { choose } from '../shared/settings.js';
import { number } from '../shared/words.js';
import { t } from './words.js';

const OURS = ['broken', 'unreachable', 'picture_lost']; // sentences of this page; all others are the gateway's

/** @param {{chat: import('./chat.js').Chat, node: object}} props */
export function Trouble({ chat, node }) {
  const { error } = node;
  if (node.state === 'stopped') return html`<p class="faint">${t('stopped')}</p>`;
  if (!error) return node.state === 'done' ? html`<${Shortness} node=${node} />` : null;
  return html`
    <div class="notice bad" role="alert">
      <p>${sentence(node)}</p>
      ${error.retryAt > 0 && html`<${Countdown} chat=${chat} node=${node} />`}
      ${node.tries > 0 && html`<p class="faint">${t('tries', { tries: number(node.tries) })}</p>`}
      ${error.requestId && html`<p class="faint">${t('requestId', { id: error.requestId })}</p>`}
      ${node.state === 'refused' && html`
        <div class="acts"><button type="button" data-act="retry" onClick=${() => chat.retry(node)}>${t('retry')}</button></div>`}
    </div>`;
}

function Shortness({ node }) {
  if (!node.text && !node.reasoning) return html`<p class="faint">${t('noText')}</p>`;
  return node.finish === 'length' ? html`<p class="faint">${t('cut')}</p>` : null;
}

/** The gateway's own sentence wherever it has said one. */
function sentence({ error, state }) {
  if (OURS.includes(error.reason) && !error.message) return t(error.reason);
  if (error.reason === 'bug') return t('bug', { message: error.message });
  const said = error.message || t('statusOnly', { status: error.status });
  return state === 'broken' ? t('brokenBy', { message: said }) : said;
}

/** Counts down to when the server may be asked again, and lets the user have that done by itself. */
function Countdown({ chat, node }) {
  const [, tick] = useReducer((count) => count + 1, 0);
  const left = Math.max(0, Math.ceil((node.error.retryAt - Date.now()) / 1000));
  useEffect(() => {
    if (left === 0) return undefined;
    const timer = setInterval(tick, 250);
    return () => clearInterval(timer);
  }, [node.error.retryAt, left === 0]);
  const isAutomatic = chat.isScheduled(node);
  const toggle = (event) => {
    choose('retry', event.target.checked ? 'on' : '');
    if (event.target.checked) chat.schedule(node);
    else chat.cancel(node);
    tick();
  };
  return html`
    <p aria-live="off">${t(left === 0 ? 'retryNow' : isAutomatic ? 'retriesIn' : 'retryIn', { seconds: number(left) })}
      <span class="countdown out-of-sight">${left}</span></p>
    <div class="acts">
      <label><input type="checkbox" data-act="auto" checked=${isAutomatic} onChange=${toggle} /> ${t('auto')}</label>
      ${isAutomatic && html`<button type="button" data-act="cancel" onClick=${() => { chat.cancel(node); chat.changed(); }}>${t('cancel')}</button>`}
    </div>`;
}
