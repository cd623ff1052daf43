/** Where a question is written, and where pictures come in: picked, dropped, pasted, or from the camera. */
import { html, useEffect, useRef, useState } from '../shared/dom.js';
import { bytes } from '../shared/words.js';
import { Landscape, Tray } from './pictures.js';
import { t } from './words.js';

/** @param {{chat: import('./chat.js').Chat}} props */
export function Composer({ chat }) {
  const field = useRef(null), files = useRef(null), camera = useRef(null);
  const [text, setText] = useState('');
  const [objection, setObjection] = useState('');
  const isDragged = useDrop((found) => take(found));
  useEffect(() => field.current.focus(), [chat.current.id]);

  const take = (found) => {
    const [good, why] = sorted([...found], chat.about);
    setObjection(why);
    if (good.length) chat.take(good);
  };
  const pick = (event) => {
    take(event.target.files);
    event.target.value = ''; // the same file may be chosen again
    field.current.focus();
  };
  const canSend = !chat.isBusy && (text.trim() !== '' || chat.tray.length > 0);
  const send = (event) => {
    event?.preventDefault();
    if (!canSend) return;
    chat.send(text.trim());
    setText('');
    setObjection('');
    field.current.focus();
  };
  const onKeyDown = (event) => {
    // While an input method offers characters, Enter chooses one; on a touch screen it starts a new line.
    if (event.key === 'Enter' && !event.shiftKey && !hasTouch() && !event.isComposing && event.keyCode !== 229) send(event);
    if (event.key === 'Escape' && chat.isBusy) chat.stop();
  };
  const onPaste = (event) => {
    const found = [...event.clipboardData.files];
    if (!found.length) return;
    event.preventDefault();
    take(found);
  };
  const takesPictures = chat.about?.takes_images !== false;
  return html`
    <form id="composer" onSubmit=${send}>
      ${objection && html`<div class="notice warn" role="alert">${objection}</div>`}
      <${Tray} chat=${chat} />
      <div class="writing">
        <label class="out-of-sight" for="question">${t('question')}</label>
        <textarea id="question" ref=${field} rows="1" dir="auto" placeholder=${t(isSmall() ? 'placeholderShort' : 'placeholder')} value=${text}
          onInput=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown} onPaste=${onPaste}></textarea>
        ${takesPictures && html`
          <input id="files" ref=${files} type="file" accept="image/*" multiple hidden onChange=${pick} />
          <input ref=${camera} type="file" accept="image/*" capture="environment" hidden onChange=${pick} />
          <button id="attach" type="button" class="round" title=${t('attach')} aria-label=${t('attach')} onClick=${() => files.current.click()}><${Landscape} /></button>
          <button id="camera" type="button" class="round" title=${t('camera')} aria-label=${t('camera')} onClick=${() => camera.current.click()}><${Lens} /></button>`}
        ${chat.isBusy
          ? html`<button id="stop" key="stop" type="button" class="main" onClick=${() => { chat.stop(); field.current.focus(); }}>${t('stop')}</button>`
          : html`<button id="send" key="send" type="submit" class="main" disabled=${!canSend}>${t('send')}</button>`}
      </div>
      ${isDragged && html`<div class="drop" aria-hidden="true">${t('drop')}</div>`}
    </form>`;
}

const isSmall = () => matchMedia('(pointer: coarse), (max-width: 760px)').matches;
const hasTouch = () => matchMedia('(pointer: coarse)').matches;

/** The files that can be sent, and why others cannot. Kinds are the gateway's to judge, by their bytes. */
function sorted(files, about) {
  if (about?.takes_images === false) return [[], t('noPictures', { model: about.model })];
  const most = about?.images?.max_bytes ?? Infinity;
  const good = [], why = [];
  for (const file of files) {
    if (file.type && !file.type.startsWith('image/')) why.push(t('notPicture', { name: file.name }));
    else if (file.size > most) why.push(t('tooLarge', { name: file.name, size: bytes(file.size), most: bytes(most) }));
    else good.push(file);
  }
  return [good, why.join(' ')];
}

/** Takes files that are dropped anywhere on the page. @returns whether some are held over it */
function useDrop(take) {
  const [isDragged, setDragged] = useState(false);
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
    const over = (event) => { if (hasFiles(event)) { event.preventDefault(); setDragged(true); } };
    const leave = (event) => { if (event.relatedTarget === null) setDragged(false); };
    const drop = (event) => {
      setDragged(false);
      if (!hasFiles(event)) return;
      event.preventDefault();
      latest.current(event.dataTransfer.files);
    };
    const handlers = Object.entries({ dragover: over, dragleave: leave, drop });
    for (const [name, handler] of handlers) addEventListener(name, handler);
    return () => { for (const [name, handler] of handlers) removeEventListener(name, handler); };
  }, []);
  return isDragged;
}

const Lens = () => html`
  <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true"><path fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round"
    d="M4 7h4l2-2h4l2 2h4v12H4zM12 16a3 3 0 1 0 0-6 3 3 0 0 0 0 6z" /></svg>`;
