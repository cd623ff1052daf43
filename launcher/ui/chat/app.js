/** The chat page, put together. */
import { Refusal, ask } from '../shared/api.js';
import { html, render, useEffect, useReducer, useState } from '../shared/dom.js';
import { useLanguage } from '../shared/switches.js';
import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { ConfirmDialog, FiguresDialog, KeyDialog, ModeDialog, OptionsDialog } from './dialogs.js';
import { Log } from './log.js';
import { openStore } from './store.js';
import { titleOf } from './tree.js';
import { t } from './words.js';

const ASK_AGAIN_MS = 5000; // while the server does not answer

function App({ chat }) {
  useChanges(chat);
  useLanguage();
  const [shown, show] = useState(''); // the dialog that is open
  const [doomed, setDoomed] = useState(null); // the conversation that may be deleted
  const [lock, setLock] = useState(''); // why a key is asked for
  const [isListShown, showList] = useState(false); // on narrow screens
  const [away, setAway] = useState(''); // why the server is not to be had
  const close = () => show('');
  const askKey = (sentence) => { setLock(sentence); show('key'); };
  const learn = () => learnOf(chat, askKey, setAway);
  useEffect(() => {
    learn();
    const refused = (event) => askKey(event.detail);
    chat.addEventListener('locked', refused);
    return () => chat.removeEventListener('locked', refused);
  }, []);
  useEffect(() => { document.title = chat.about?.model ?? 'launcher'; }, [chat.about]);
  return html`
    <a class="skip button" href="#question">${t('skip')}</a>
    <header class="bar">
      <button id="menu" type="button" class="round" aria-expanded=${isListShown} aria-controls="conversations" aria-label=${t('menu')} onClick=${() => showList(!isListShown)}>☰</button>
      <h1>${chat.about?.model ?? 'launcher'}</h1>
      <button id="mode" type="button" disabled=${!chat.about} onClick=${() => show('mode')}>${t('mode', { name: t(chat.mode) })}</button>
    </header>
    <div class="columns" data-list=${isListShown ? 'shown' : 'hidden'}>
      <${Conversations} chat=${chat} onDelete=${setDoomed} onChoose=${() => showList(false)}>
        <button id="figures" type="button" class="quiet" onClick=${() => show('figures')}>${t('figures')}</button>
        <button id="options" type="button" class="quiet" onClick=${() => show('options')}>${t('options')}</button>
        <a class="button quiet" href="/ops">${t('ops')}</a>
      </${Conversations}>
      <main>
        ${away && html`<p class="notice bad" role="alert">${away}</p>`}
        ${chat.trouble && html`<p class="notice warn" role="alert">${t('keepFailed', { why: chat.trouble })}</p>`}
        <${Log} chat=${chat} />
        <${Composer} chat=${chat} />
      </main>
    </div>
    <${Announcer} chat=${chat} />
    <${ModeDialog} chat=${chat} open=${shown === 'mode'} onClose=${close} />
    <${FiguresDialog} chat=${chat} open=${shown === 'figures'} onClose=${close} />
    <${OptionsDialog} chat=${chat} open=${shown === 'options'} onClose=${close} askKey=${() => askKey('')} />
    <${KeyDialog} open=${shown === 'key'} sentence=${lock} onKey=${() => { close(); learn(); }} onClose=${close} />
    <${ConfirmDialog} chat=${chat} conversation=${doomed} onClose=${() => setDoomed(null)} />`;
}

/** Draws anew when the chat changes, at most once a frame. */
function useChanges(chat) {
  const [, draw] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    let isDue = false;
    const now = () => { isDue = false; draw(); };
    const soon = () => {
      if (isDue) return;
      isDue = true;
      if (document.visibilityState === 'visible') requestAnimationFrame(now);
      else setTimeout(now, 0); // frames stand still while nobody looks
    };
    chat.addEventListener('change', soon);
    return () => chat.removeEventListener('change', soon);
  }, []);
}

let asking = 0; // the timer of the next question

/** Asks the gateway what it serves; again and again while nobody answers. */
async function learnOf(chat, askKey, setAway) {
  clearTimeout(asking);
  try {
    chat.about = await (await ask('/api/about')).json();
    setAway('');
    chat.changed();
  } catch (error) {
    if (error.status === 401) {
      setAway(error.message);
      askKey(error.message);
      return;
    }
    setAway((error instanceof Refusal && error.message) || t('unreachable'));
    asking = setTimeout(() => learnOf(chat, askKey, setAway), ASK_AGAIN_MS);
  }
}

/** The list, and below it what else there is. */
function Conversations({ chat, onDelete, onChoose, children }) {
  const choose = (conversation) => { chat.choose(conversation); onChoose(); };
  return html`
    <nav id="conversations" aria-label=${t('menu')}>
      <button id="new" type="button" onClick=${() => { chat.start(); onChoose(); }}>+ ${t('new')}</button>
      <ul>${chat.list.map((one) => html`
        <li key=${one.id}>
          <button type="button" class="conversation quiet" dir="auto" aria-current=${one === chat.current ? 'true' : undefined} onClick=${() => choose(one)}>
            ${titleOf(one) || t('untitled')}</button>
          <button type="button" class="quiet" data-act="delete" aria-label=${t('delete', { title: titleOf(one) })} onClick=${() => onDelete(one)}>✕</button>
        </li>`)}
      </ul>
      <div class="more">${children}</div>
    </nav>`;
}

/** Tells a screen reader that an answer has begun or ended, not each of its words. */
function Announcer({ chat }) {
  const [said, say] = useState('');
  useEffect(() => {
    chat.said = (node) => say(t({ waiting: '', streaming: 'began', done: 'complete', stopped: 'stopped' }[node.state] ?? 'failed'));
  }, []);
  return html`<p id="status" role="status" class="out-of-sight">${said}</p>`;
}

const chat = new Chat(await openStore());
await chat.open();
render(html`<${App} chat=${chat} />`, document.getElementById('app'));
