/** Pictures as they are shown: in the tray of the question that is being written, and in the conversation. */
import { html, useEffect, useState } from '../shared/dom.js';
import { number } from '../shared/words.js';
import { t } from './words.js';

/**
 * Such as `1920×1080 → 672×364 · 314 tokens`.
 * @param {object} told what the gateway has said of the picture
 * @param {object | null} about what it has said of itself: where it knows no rule for the model's pictures, tokens are a guess
 */
export function sizeOf({ width_in, height_in, width, height, tokens }, about) {
  const from = `${width_in}×${height_in}`, to = `${width}×${height}`;
  const isGuess = about?.modes[0].image.most_tokens === null;
  const said = isGuess ? t('about', { tokens: number(tokens) }) : number(tokens);
  return t(from === to ? 'unchanged' : 'shrunk', { size: from, from, to, tokens: said });
}

/** The small picture of one that was sent; read from the store where this page has not made it yet. */
export function Thumbnail({ uploads, picture }) {
  const [source, setSource] = useState(uploads.all.get(picture.id)?.thumbnail ?? '');
  useEffect(() => {
    let isHere = true, upload = null;
    const show = () => { if (isHere) setSource(upload.thumbnail); };
    uploads.of(picture).then((found) => {
      if (found === null || !isHere) return;
      upload = found;
      upload.addEventListener('change', show);
      if (upload.thumbnail) show();
      else upload.draw();
    });
    return () => {
      isHere = false;
      upload?.removeEventListener('change', show);
    };
  }, [picture.id]);
  const alt = t('picture', { name: picture.name });
  return source ? html`<img src=${source} alt=${alt} />` : html`<${NoPicture} label=${alt} />`;
}

/** In place of a picture that this browser cannot draw, or has not drawn yet. */
function NoPicture({ label }) {
  return html`<span class="no-picture" role="img" aria-label=${label}><${Landscape} /></span>`;
}

/** The sign for a picture. */
export function Landscape() {
  return html`
    <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true"><path fill="none" stroke="currentColor" stroke-width="2"
      stroke-linecap="round" stroke-linejoin="round" d="M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01" /></svg>`;
}

/** The pictures of the question that is being written. @param {{chat: import('./chat.js').Chat}} props */
export function Tray({ chat }) {
  if (!chat.tray.length) return null;
  return html`<div id="tray">${chat.tray.map((upload) => html`<${InTray} key=${upload.id} chat=${chat} upload=${upload} />`)}</div>`;
}

function InTray({ chat, upload }) {
  return html`
    <figure data-state=${upload.state}>
      ${upload.thumbnail
        ? html`<img src=${upload.thumbnail} alt=${t('picture', { name: upload.name })} />`
        : html`<${NoPicture} label=${t('picture', { name: upload.name })} />`}
      <figcaption><span class="name">${upload.name}</span> <span class="faint">${stateOf(upload, chat.about)}</span></figcaption>
      ${upload.state === 'sending' && html`<progress max="1" value=${upload.share} aria-label=${upload.name}></progress>`}
      ${upload.state === 'failed' && html`
        <div class="notice bad" role="alert">${upload.error.message || t('unreachable')}
          <div class="acts"><button type="button" data-act="again" onClick=${() => upload.send().catch(() => {})}>${t('sendAgain')}</button></div>
        </div>`}
      <button type="button" class="quiet" data-act="remove" aria-label=${t('remove', { name: upload.name })} onClick=${() => chat.untake(upload)}>✕</button>
    </figure>`;
}

function stateOf(upload, about) {
  if (upload.state === 'sending') return t('sending', { share: number(Math.floor(upload.share * 100)) });
  if (upload.state === 'making') return t('making');
  return upload.told ? sizeOf(upload.told, about) : '';
}
