/** Dialogs that are modal while they are wanted; Escape and a click beside one close it. */
import { html, useLayoutEffect, useRef } from './dom.js';

/**
 * Keeps a dialog open while `open`, whatever closes it otherwise.
 * @param {() => void} onClose the user has closed it
 * @returns {{ref: object, onClose: () => void}} what the dialog's element takes
 */
export function useModal(open, onClose) {
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
  return { ref, onClose: closed };
}

/** A dialog with a title and a button that closes it. */
export function Dialog({ id, open, title, close, onClose, children }) {
  const modal = useModal(open, onClose);
  const shut = () => modal.ref.current.close();
  return html`
    <dialog id=${id} ...${modal} aria-labelledby=${`${id}-title`}
      onClick=${(event) => { if (event.target === modal.ref.current) shut(); }}>
      ${open && html`
        <div class="dialog-head">
          <h2 id=${`${id}-title`}>${title}</h2>
          <button type="button" class="quiet" data-act="close" onClick=${shut}>${close}</button>
        </div>
        ${children}`}
    </dialog>`;
}
