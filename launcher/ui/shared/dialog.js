/** A dialog that is modal while `open`; Escape, its button and a click beside it close it. */
import { html, useEffect, useRef } from './dom.js';

export function Dialog({ id, open, title, close, onClose, children }) {
  const ref = useRef(null), isWanted = useRef(open);
  isWanted.current = open;
  // The event comes later than the closing: by then it may be open again, or its owner has closed it itself.
  const closed = () => { if (isWanted.current && !ref.current.open) onClose(); };
  useEffect(() => {
    if (open && !ref.current.open) ref.current.showModal();
    if (!open && ref.current.open) ref.current.close();
  }, [open]);
  return html`
    <dialog id=${id} ref=${ref} aria-labelledby=${`${id}-title`} onClose=${closed}
      onClick=${(event) => { if (event.target === ref.current) ref.current.close(); }}>
      ${open && html`
        <div class="dialog-head">
          <h2 id=${`${id}-title`}>${title}</h2>
          <button type="button" class="quiet" data-act="close" onClick=${() => ref.current.close()}>${close}</button>
        </div>
        ${children}`}
    </dialog>`;
}
