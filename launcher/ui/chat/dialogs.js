/** The dialogs: the performance mode, options, figures, the API key, and the question before something is deleted. */
import { setKey } from '../shared/api.js';
import { Dialog } from '../shared/dialog.js';
import { html, useRef } from '../shared/dom.js';
import { choose, setting } from '../shared/settings.js';
import { Switches } from '../shared/switches.js';
import { number } from '../shared/words.js';
import { download } from './download.js';
import { asJson, asMarkdown, fileName } from './exporting.js';
import { path } from './tree.js';
import { SessionTable } from './waterfall.js';
import { t } from './words.js';

/** @param {{chat: import('./chat.js').Chat, open: boolean, onClose: () => void}} props */
export function ModeDialog({ chat, open, onClose }) {
  const { about } = chat;
  return html`
    <${Dialog} id="mode-dialog" open=${open} title=${t('modeTitle')} close=${t('close')} onClose=${onClose}>
      <fieldset id="modes"><legend>${about && t('modeHint', { name: t(about.mode) })}</legend>
        ${about?.modes.map((rules) => html`
          <label class="choice">
            <input type="radio" name="mode" value=${rules.mode} checked=${chat.mode === rules.mode}
              onChange=${() => { choose('mode', rules.mode); chat.changed(); }} />
            <span><b>${t(rules.mode)}</b><br />${t(`${rules.mode}.words`)}
              <ul>${figuresOf(rules, about.takes_images !== false).map((line) => html`<li>${line}</li>`)}</ul>
            </span>
          </label>`)}
      </fieldset>
    </${Dialog}>`;
}

/** What a mode changes, in figures; of pictures only where the model takes some. */
function figuresOf(rules, takesPictures) {
  const { deadline_s: deadline, window_s: window, image } = rules;
  const seconds = (value) => number(value, 2);
  const ms = number(window * 1000);
  const grouping = { never: 'modeNoWindow', always: 'modeWindowAlways' }[window === 0 ? 'never' : rules.window_when] ?? 'modeWindow';
  return [
    t('modeWait', { seconds: seconds(deadline.normal), low: seconds(deadline.low), per: seconds(rules.deadline_per_1k_s) }),
    t(grouping, { ms }),
    t('modePrefill', { budgets: number(rules.prefill_budgets, 2) }),
    ...(takesPictures ? [pictureFigure(image)] : []),
  ];
}

function pictureFigure({ max_tokens: tokens, long_side: pixels }) {
  if (tokens) return t('modePicture', { tokens: number(tokens) });
  return pixels ? t('modePictureSide', { pixels: number(pixels) }) : t('modePictureOriginal');
}

export function FiguresDialog({ chat, open, onClose }) {
  return html`
    <${Dialog} id="figures-dialog" open=${open} title=${t('figures')} close=${t('close')} onClose=${onClose}>
      <${SessionTable} figures=${chat.figures} />
    </${Dialog}>`;
}

export function OptionsDialog({ chat, open, onClose, askKey }) {
  const field = (name) => ({ value: setting(name), onChange: (event) => choose(name, event.target.value.trim()) });
  const save = (ending, type, text) => download(fileName(chat.current, ending), type, text(chat.current));
  const isEmpty = path(chat.current).length === 0;
  return html`
    <${Dialog} id="options-dialog" open=${open} title=${t('options')} close=${t('close')} onClose=${onClose}>
      <div class="fields">
        <${Switches} />
        <label class="field wide">${t('system')}<textarea id="system" rows="3" ...${field('system')}></textarea></label>
        <label class="field">${t('temperature')}<input id="temperature" type="number" min="0" max="2" step="0.1" ...${field('temperature')} /></label>
        <label class="field">${t('maxTokens')}<input id="max-tokens" type="number" min="1" step="1" ...${field('max-tokens')} /></label>
        <label class="field">${t('thinking')}
          <select id="thinking" onChange=${(event) => choose('thinking', event.target.value)}>
            ${[['', 'thinkingDefault'], ['on', 'thinkingOn'], ['off', 'thinkingOff']].map(([value, name]) => html`
              <option value=${value} selected=${setting('thinking') === value}>${t(name)}</option>`)}
          </select>
        </label>
      </div>
      <div class="acts">
        <button type="button" data-act="export-markdown" disabled=${isEmpty} onClick=${() => save('md', 'text/markdown', asMarkdown)}>${t('exportMarkdown')}</button>
        <button type="button" data-act="export-json" disabled=${isEmpty} onClick=${() => save('json', 'application/json', asJson)}>${t('exportJson')}</button>
        ${chat.about?.keys_required !== false && html`<button type="button" data-act="change-key" onClick=${askKey}>${t('changeKey')}</button>`}
      </div>
    </${Dialog}>`;
}

/** @param {{open: boolean, sentence: string, onKey: () => void, onClose: () => void}} props */
export function KeyDialog({ open, sentence, onKey, onClose }) {
  const ref = useRef(null);
  const use = (event) => {
    event.preventDefault();
    setKey(ref.current.value.trim());
    onKey();
  };
  return html`
    <${Dialog} id="key-dialog" open=${open} title=${t('keyTitle')} close=${t('close')} onClose=${onClose}>
      ${sentence && html`<p class="notice warn" role="alert">${sentence}</p>`}
      <form onSubmit=${use}>
        <label class="field">${t('keyLabel')}<input id="key" ref=${ref} type="password" autocomplete="off" required /></label>
        <p class="faint">${t('keyHint')}</p>
        <button type="submit" class="main" data-act="use-key">${t('useKey')}</button>
      </form>
    </${Dialog}>`;
}

/** @param {{chat: import('./chat.js').Chat, conversation: object | null, onClose: () => void}} props */
export function ConfirmDialog({ chat, conversation, onClose }) {
  return html`
    <${Dialog} id="confirm-dialog" open=${conversation !== null} title=${t('deleteShort')} close=${t('close')} onClose=${onClose}>
      <p>${t('deleteAsk')}</p>
      <div class="acts">
        <button type="button" class="main" data-act="yes" onClick=${() => { chat.remove(conversation); onClose(); }}>${t('yesDelete')}</button>
        <button type="button" data-act="no" onClick=${onClose}>${t('no')}</button>
      </div>
    </${Dialog}>`;
}
