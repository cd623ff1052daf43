/** A dialog that is modal while `open`; Escape, its button and a click beside it close it. */
import { html, useLayoutEffect, useRef } from './dom.js';

export function Dialog({ id, open, title, close, onClose, children }) {
  const ref = useRef(null), ours = useRef(0);
  // An event comes for each closing, later than it: by then the dialog may be wanted again. Its owner's own tell nothing new.
  const closed = () => {
    if (ours.current) ours.current -= 1;
    else onClose();
  };
  useLayoutEffect(() => {
    if (open && !ref.current.open) ref.current.showModal();
    if (!open && ref.current.open) {
      ours.current += 1;
      ref.current.close();
    }
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
