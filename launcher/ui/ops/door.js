/** Asks for the key of an operator, where one is needed. */
import { html, useEffect, useRef, useState } from '../shared/dom.js';
import { key, setKey } from '../shared/api.js';
import { say } from './words.js';

/** @param {{why: string, onKey: () => void}} props `why` is the gateway's own sentence. */
export function Door({ why, onKey }) {
  const [typed, setTyped] = useState('');
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const enter = (event) => {
    event.preventDefault();
    if (!typed.trim()) return;
    setKey(typed.trim());
    onKey();
  };
  return html`<section class="door" aria-labelledby="door-name">
    <h2 id="door-name">${say('key_needed')}</h2>
    <p class="notice bad" role="alert">${why}</p>
    <form onSubmit=${enter}>
      <label for="key">${say('key')}</label>
      <input id="key" type="password" autocomplete="off" spellcheck=${false} value=${typed} ref=${field}
        aria-describedby="key-hint" onInput=${(event) => setTyped(event.target.value)} />
      <button type="submit" class="main">${say('use_key')}</button>
    </form>
    <p id="key-hint" class="faint">${say('key_hint')}</p>
  </section>`;
}

/** Takes the key out of this tab. */
export function Leave({ onKey }) {
  if (!key()) return null;
  const forget = () => {
    setKey('');
    onKey();
  };
  return html`<button type="button" class="quiet" onClick=${forget}>${say('forget_key')}</button>`;
}
