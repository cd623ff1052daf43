/** The conversation that is shown. Stays at its end while an answer grows, unless the reader has scrolled away. */
import { html, useEffect, useRef, useState } from '../shared/dom.js';
import { Message } from './message.js';
import { path } from './tree.js';
import { t } from './words.js';

const NEAR_PX = 80; // so near to the end counts as there

/** @param {{chat: import('./chat.js').Chat}} props */
export function Log({ chat }) {
  const ref = useRef(null), isFollowing = useRef(true);
  const [isAway, setAway] = useState(false);
  const nodes = path(chat.current);
  const toEnd = () => { ref.current.scrollTop = ref.current.scrollHeight; };
  useEffect(() => {
    isFollowing.current = true;
    const observer = new ResizeObserver(() => { if (isFollowing.current) toEnd(); });
    observer.observe(ref.current.firstElementChild);
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, [chat.current.id]);
  useEffect(() => {
    isFollowing.current = true;
    toEnd();
  }, [chat.current.id, nodes.length]);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = ref.current;
    isFollowing.current = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    setAway(!isFollowing.current);
  };
  return html`
    <div class="log-area"><div id="log" ref=${ref} tabindex="0" role="region" aria-label=${t('log')} onScroll=${onScroll}>
      <div class="messages">
        ${nodes.length === 0 && html`<${Welcome} chat=${chat} />`}
        ${nodes.map((node) => html`<${Message} key=${`${chat.current.id}/${node.id}`} chat=${chat} node=${node} />`)}
      </div>
    </div>
    ${isAway && html`<button type="button" id="newest" onClick=${toEnd}>↓ ${t('newest')}</button>`}</div>`;
}

function Welcome({ chat }) {
  const model = chat.about?.model ?? '…';
  return html`
    <div class="welcome">
      <p class="large">${t(chat.about?.takes_images === false ? 'empty' : 'emptyPictures', { model })}</p>
      <p class="faint">${t('emptyHint')}</p>
      ${!chat.store.lasting && html`<p class="notice warn">${t('notKept')}</p>`}
    </div>`;
}
