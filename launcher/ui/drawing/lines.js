/**
 * A stream of text as lines, whatever its cuts: the same text gives the same lines.
 *
 * Line ends become \n; NUL and halves of surrogate pairs become U+FFFD. A line that is longer than LONGEST comes in
 * parts, cut at a space where there is one, never within a character that is written with several.
 */
export const LONGEST = 4096; // UTF-16 units
const HELD = /[\r\uD800-\uDBFF]$/; // means something else with what may follow
const JOINED = /^[\p{M}\p{Emoji_Modifier}\u200D]/u;

/** @typedef {{text: string, first: boolean, last: boolean}} Part `first` and `last` of its line */

export class Lines {
  #rest = '';
  #at = 0; // what lies before has been given
  #held = '';
  #inLine = false;
  #over = false;

  /** Takes a piece of the stream. */
  put(text) {
    let whole = this.#held + text;
    this.#held = HELD.exec(whole)?.[0] ?? '';
    if (this.#held) whole = whole.slice(0, -1);
    this.#keep(whole);
  }

  /** Nothing more will come. */
  end() {
    this.#keep(this.#held);
    this.#held = '';
    this.#over = true;
  }

  #keep(text) {
    this.#rest = (this.#at ? this.#rest.slice(this.#at) : this.#rest) + clean(text);
    this.#at = 0;
  }

  /** The next part that is settled; null where there is none yet. @returns {Part | null} */
  next() {
    const ahead = this.#rest.slice(this.#at, this.#at + LONGEST + 1);
    const end = ahead.indexOf('\n');
    if (end >= 0) return this.#give(ahead.slice(0, end), end + 1, true);
    if (ahead.length > LONGEST) {
      const cut = cutOf(ahead);
      return this.#give(ahead.slice(0, cut), cut, false);
    }
    return this.#over && ahead ? this.#give(ahead, ahead.length, true) : null;
  }

  #give(text, length, last) {
    const part = { text, first: !this.#inLine, last };
    this.#inLine = !last;
    this.#at += length;
    return part;
  }

  /** What there is of the part that is not settled. @returns {Part} */
  get open() {
    return { text: this.#rest.slice(this.#at), first: !this.#inLine, last: false };
  }
}

function clean(text) {
  return text.toWellFormed().replace(/\r\n?/g, '\n').replaceAll('\0', '\uFFFD');
}

function cutOf(ahead) {
  const space = ahead.lastIndexOf(' ', LONGEST - 1);
  if (space >= LONGEST / 2) return space + 1;
  for (let cut = LONGEST; cut > LONGEST - 32; cut -= 1) if (isBetween(ahead, cut)) return cut;
  return isLow(ahead, LONGEST) ? LONGEST - 1 : LONGEST;
}

const isLow = (text, at) => text.charCodeAt(at) >> 10 === 0x37;

function isBetween(text, at) {
  return !isLow(text, at) && text[at - 1] !== '\u200D' && !JOINED.test(text.slice(at, at + 2));
}
