/** How the stream goes, where it does not go: what broke, how old the figures are, when the next try is. */
import { html, useEffect, useReducer } from '../shared/dom.js';
import { span } from './figures.js';
import { say } from './words.js';

/** @param {{going: object, lookedAt: number | null, onTry: () => void}} props `lookedAt`: of performance.now() */
export function Banner({ going, lookedAt, onTry }) {
  const [, tick] = useReducer((count) => count + 1, 0);
  useEffect(() => { // the age and the wait are counted here, so that nothing else is drawn for them
    const timer = setInterval(tick, 1000);
    return () => clearInterval(timer);
  }, []);
  const now = performance.now();
  const old = lookedAt === null ? say('broken_none') : say('broken_age', { age: age(now - lookedAt) });
  const waitS = Math.ceil((going.retryAt - now) / 1000);
  const next = waitS > 0 ? say('broken_next', { wait: `${waitS} s` }) : say('broken_now');
  return html`<div class="notice warn banner">
    <p>
      <strong>${say(going.kind)}</strong> ${going.why}
      <span> ${old}</span>
      ${going.kind === 'broken' && html`<span> ${next}</span>`}
    </p>
    <button type="button" onClick=${onTry}>${say('try_now')}</button>
  </div>`;
}

const age = (ms) => span(Math.max(1, Math.round(ms / 1000))).replace(/(\d)\.0+ /, '$1 ');
