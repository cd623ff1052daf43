/** One message: a question with its pictures, or an answer with its reasoning, its drawing and its waterfall. */
import { Drawing } from '../drawing/drawing.js';
import { copied } from '../shared/clipboard.js';
import { html, useEffect, useRef, useState } from '../shared/dom.js';
import { number } from '../shared/words.js';
import { Thumbnail, sizeOf } from './pictures.js';
import { variants } from './tree.js';
import { Trouble } from './trouble.js';
import { Waterfall } from './waterfall.js';
import { t } from './words.js';

/** @param {{chat: import('./chat.js').Chat, node: object}} props */
export function Message({ chat, node }) {
  const isQuestion = node.role === 'user';
  const label = isQuestion ? t('you') : t('model', { model: chat.about?.model ?? '' });
  return html`
    <article class="message" data-role=${node.role} data-state=${node.state ?? 'done'} data-id=${node.id} aria-label=${label}>
      ${isQuestion ? html`<${Question} chat=${chat} node=${node} />` : html`<${Answer} chat=${chat} node=${node} />`}
    </article>`;
}

function Question({ chat, node }) {
  const [isEdited, setEdited] = useState(false);
  if (isEdited) return html`<${Editor} chat=${chat} node=${node} leave=${() => setEdited(false)} />`;
  return html`
    ${node.pictures?.length > 0 && html`
      <ul class="pictures">${node.pictures.map((picture) => html`<${Shown} key=${picture.id} chat=${chat} picture=${picture} />`)}</ul>`}
    ${node.text && html`<div class="said" dir="auto">${node.text}</div>`}
    <div class="acts">
      <${Variants} chat=${chat} node=${node} />
      <${Copy} text=${node.text} />
      <button type="button" class="quiet" data-act="edit" disabled=${chat.isBusy} onClick=${() => setEdited(true)}>${t('edit')}</button>
    </div>`;
}

function Shown({ chat, picture }) {
  return html`
    <li><${Thumbnail} uploads=${chat.uploads} picture=${picture} />
      ${picture.told && html`<span class="faint">${sizeOf(picture.told, chat.about)}</span>`}
    </li>`;
}

function Editor({ chat, node, leave }) {
  const ref = useRef(null);
  useEffect(() => {
    ref.current.value = node.text;
    ref.current.focus();
  }, []);
  const save = () => { chat.edit(node, ref.current.value); leave(); };
  const onKeyDown = (event) => { if (event.key === 'Escape') leave(); };
  return html`
    <textarea class="editor" ref=${ref} rows="3" aria-label=${t('question')} onKeyDown=${onKeyDown}></textarea>
    <div class="acts">
      <button type="button" class="main" data-act="save" onClick=${save}>${t('save')}</button>
      <button type="button" data-act="leave" onClick=${leave}>${t('leave')}</button>
    </div>`;
}

function Answer({ chat, node }) {
  const isOpen = node.state === 'waiting' || node.state === 'streaming';
  const canGoOn = node.state === 'broken' || node.state === 'stopped' || (node.state === 'done' && node.finish === 'length');
  return html`
    <${Words} key=${node.epoch} chat=${chat} node=${node} />
    ${node.state === 'waiting' && html`<p class="faint waiting">${waitingFor(chat, node)}</p>`}
    ${!isOpen && html`
      <${Trouble} chat=${chat} node=${node} />
      ${node.leftOut > 0 && html`<p class="faint">${t('leftOut', { count: number(node.leftOut), most: number(chat.about?.images.max_count) })}</p>`}
      ${node.timing && node.state === 'done' && html`<${Waterfall} node=${node} />`}
      <div class="acts">
        <${Variants} chat=${chat} node=${node} />
        ${node.text && html`<${Copy} text=${node.text} />`}
        ${canGoOn && html`<button type="button" class="quiet" data-act="goon" disabled=${chat.isBusy} onClick=${() => chat.goOn(node)}>${t('goon')}</button>`}
        ${node.state !== 'refused' && html`<button type="button" class="quiet" data-act="regenerate" disabled=${chat.isBusy} onClick=${() => chat.again(node)}>${t('regenerate')}</button>`}
      </div>`}`;
}

/** What an answer without a word yet is waiting for. */
function waitingFor(chat, node) {
  const question = chat.current.nodes[node.parent];
  const sending = (question?.pictures ?? []).map(({ id }) => chat.uploads.all.get(id)).filter((one) => one?.state === 'sending');
  if (!sending.length) return t('waiting');
  return t('waitingPictures', { share: number(Math.floor(100 * Math.min(...sending.map((one) => one.share)))) });
}

/** The answer's text and reasoning. Drawn by the Drawing alone: nothing here is told of the pieces. */
function Words({ chat, node }) {
  const answer = useRef(null), thoughts = useRef(null);
  const [reasons, setReasons] = useState(node.reasoning !== '');
  useEffect(() => {
    const drawings = { text: new Drawing(answer.current), reasoning: new Drawing(thoughts.current) };
    const isOpen = chat.running.get(chat.current.id)?.node === node;
    for (const [field, drawing] of Object.entries(drawings)) {
      if (!isOpen) drawing.set(node[field]);
      else if (node[field]) drawing.add(node[field]);
    }
    const stop = () => { for (const drawing of Object.values(drawings)) drawing.stop(); };
    if (!isOpen) return stop;
    if (node.reasoning) setReasons(true); // it began before this was drawn
    const off = chat.listen(node, {
      piece: ({ text, reasoning }) => {
        if (reasoning) {
          setReasons(true);
          drawings.reasoning.add(reasoning);
        }
        if (text) drawings.text.add(text);
      },
      end: () => Promise.all([drawings.text.end(), drawings.reasoning.end()]),
    });
    return () => { off(); stop(); };
  }, []);
  const isReasoning = node.state === 'streaming' && node.text === '';
  return html`
    <details class="reasoning" hidden=${!reasons}>
      <summary>${t(isReasoning ? 'reasoningNow' : 'reasoning')}</summary>
      <div class="thoughts" ref=${thoughts}></div>
    </details>
    <div class="answer" ref=${answer}></div>`;
}

/** Which of several wordings or answers is shown. */
function Variants({ chat, node }) {
  const all = variants(chat.current, node);
  if (all.length < 2) return null;
  const at = all.indexOf(node);
  return html`
    <span class="variants">
      <button type="button" class="quiet" data-act="previous" aria-label=${t('previous')} disabled=${at === 0} onClick=${() => chat.turn(node, -1)}>‹</button>
      <span>${at + 1}/${all.length}</span>
      <button type="button" class="quiet" data-act="next" aria-label=${t('next')} disabled=${at === all.length - 1} onClick=${() => chat.turn(node, 1)}>›</button>
    </span>`;
}

function Copy({ text }) {
  const [done, setDone] = useState('copy');
  const act = async () => {
    setDone((await copied(text)) ? 'copied' : 'copyFailed');
    setTimeout(() => setDone('copy'), 2000);
  };
  return html`<button type="button" class="quiet" data-act="copy" onClick=${act}>${t(done)}</button>`;
}
