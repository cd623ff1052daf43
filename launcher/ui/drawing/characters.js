/**
 * Characters that nobody sees but that change what is read or copied: they are shown by their code points.
 *
 * Shown: the controls of C0 and C1, explicit direction (U+202A–202E, U+2066–2069), line and paragraph separators,
 * invisible operators and fillers, tags, a zero-width space outside the scripts that break lines by it, and variation
 * selectors in a row. Left as they are: joiners, U+200E/200F/061C, the flags that are written with tags, and the
 * variants of Han characters.
 */
const KNOWN = String.raw`\u{1F3F4}[\u{E0030}-\u{E0039}\u{E0061}-\u{E007A}]{3,6}\u{E007F}|(?<=\p{Script=Han})[\u{E0100}-\u{E01EF}]`;
const UNSEEN = [
  String.raw`[\0-\x08\x0B-\x1F\x7F-\x9F\u180E\u2028-\u202E\u2060-\u206F\u3164\uFEFF\uFFA0\uFFF9-\uFFFB\u{E0000}-\u{E0FFF}]`,
  String.raw`(?<![\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}])\u200B`,
  String.raw`(?<=[\uFE00-\uFE0F])[\uFE00-\uFE0F]`,
].join('|');
const PARTS = new RegExp(`(?:${KNOWN})|((?:${UNSEEN})+)`, 'gu');
const SUSPECT = /[\0-\x08\x0B-\x1F\x7F-\x9F\u180E\u200B\u2028-\u202E\u2060-\u206F\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF9-\uFFFB\uDB40-\uDB43]/;
const MOST = 200; // pieces of a text that are marked one by one
const NAMED = 4; // of a run, so many are named and the others counted

/** What a run of unseen characters is called: `U+202E`, or `U+E0041 U+E0042 U+E0043 U+E0044 +96`. */
function name(run) {
  const points = Array.from(run, (one) => `U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`);
  const others = points.length - NAMED;
  return points.slice(0, NAMED).join(' ') + (others > 0 ? ` +${others}` : '');
}

/** The pieces of `text`, in order. @returns {{text: string, unseen: boolean}[]} */
function pieces(text) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(PARTS)) {
    if (match[1] === undefined) continue;
    if (match.index > at) found.push({ text: text.slice(at, match.index), unseen: false });
    found.push({ text: name(match[1]), unseen: true });
    at = match.index + match[0].length;
  }
  if (at < text.length) found.push({ text: text.slice(at), unseen: false });
  return found;
}

/** Whether `text` may hold characters that must be shown: false is sure. */
export const isSuspect = (text) => SUSPECT.test(text);

/** `text` for a place that holds nothing but text. */
export function seen(text) {
  if (!isSuspect(text)) return text;
  return pieces(text).map((piece) => (piece.unseen ? `⟦${piece.text}⟧` : piece.text)).join('');
}

/** The nodes that show `text`. @returns {Node[]} */
export function nodes(text) {
  if (!isSuspect(text)) return text ? [document.createTextNode(text)] : [];
  const found = pieces(text);
  if (found.length > MOST) return [document.createTextNode(seen(text))];
  return found.map((piece) => {
    if (!piece.unseen) return document.createTextNode(piece.text);
    const mark = document.createElement('span');
    mark.className = 'unseen';
    mark.textContent = piece.text;
    return mark;
  });
}

/** Shows what is unseen in all texts of a fragment. */
export function showUnseen(fragment) {
  if (!isSuspect(fragment.textContent)) return;
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  const suspects = [];
  while (walker.nextNode()) if (isSuspect(walker.currentNode.data)) suspects.push(walker.currentNode);
  for (const one of suspects) one.replaceWith(...nodes(one.data));
}
