/** Switches the deployment's mode. Buttons, not radios: an arrow key must not switch anything. */
import { html, useEffect, useState } from '../shared/dom.js';
import { ask } from '../shared/api.js';
import { say } from './words.js';

const MODES = ['low-latency', 'balanced', 'high-throughput'];

export function Mode({ mode }) {
  const [wanted, setWanted] = useState(null); // until a look shows another mode than before
  useEffect(() => setWanted(null), [mode]);
  const [said, setSaid] = useState({ text: '', isBad: false });
  const choose = async (next) => {
    if (next === (wanted ?? mode)) return;
    setWanted(next);
    try {
      const { mode: now, before } = await (await ask('/api/mode', { method: 'PUT', json: { mode: next } })).json();
      setSaid({ text: say('mode_changed', { before: say(before), now: say(now) }), isBad: false });
    } catch (error) {
      setSaid({ text: error.message || say('no_answer'), isBad: true });
      setWanted(null);
    }
  };
  return html`<div class="mode">
    <div role="group" aria-labelledby="mode-name" class="choice">
      <span id="mode-name">${say('mode')}</span>
      ${MODES.map((one) => html`<button key=${one} type="button" aria-pressed=${String(one === (wanted ?? mode))}
        disabled=${mode === undefined} onClick=${() => choose(one)}>${say(one)}</button>`)}
    </div>
    <p role="status" class=${said.isBad ? 'notice bad' : 'faint'}>${said.text}</p>
  </div>`;
}
