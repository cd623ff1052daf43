/**
 * Puts a text on the clipboard. Pages that came by plain http from another machine have no clipboard of the new kind: there
 * the old way is tried.
 * @param {string} text
 * @returns {Promise<boolean>} whether it is there
 */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedTheOldWay(text);
  }
}

function copiedTheOldWay(text) {
  const before = document.activeElement;
  const field = document.createElement('textarea');
  field.value = text;
  field.readOnly = true;
  field.className = 'out-of-sight';
  (before?.closest('dialog') ?? document.body).append(field); // a dialog keeps the focus within itself
  field.select();
  try {
    return document.execCommand('copy');
  } finally {
    field.remove();
    before?.focus?.();
  }
}
