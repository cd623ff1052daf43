/**
 * The quotes and list items that are open, one within the other, and where in the page the next block goes.
 *
 * What grows long goes on in another part, or in another list: so the browser lays out a bounded part at a time, and none
 * that is out of sight.
 */
import { fill } from './element.js';
import * as marks from './marks.js';

export const FULL = 8192; // characters of a part, a list or a table; then another begins
export const MOST = 64; // blocks of a part, items of a list, rows of a table
const EM_OF_CHARACTER = 0.02; // of a part's height: 80 characters make a line

/**
 * @typedef {{element: Element, sign: string, next: number, items: number, size: number}} List `next`: the next number
 * @typedef {{kind: 'answer' | 'quote' | 'item', element: Element, body: Element | null, blocks: number, size: number,
 *   section?: Element, parts?: number, em?: number, list?: List, offset?: number, isEmpty?: boolean}} Container `body` takes
 *   the next block, `blocks` and `size` (characters) are what it holds
 */

export class Containers {
  #pen;
  #open;

  /** @param {import('./pen.js').Pen} pen @param {Element} root */
  constructor(pen, root) {
    this.#pen = pen;
    this.#open = [{ kind: 'answer', element: root, body: null, blocks: 0, size: 0 }];
  }

  get depth() {
    return this.#open.length;
  }

  /** Whether the next block is the first of a list's item. */
  get isItemsFirst() {
    const top = this.#open.at(-1);
    return top.kind === 'item' && top.blocks === 0;
  }

  /** Blocks of the answer itself find out which way they are written; those within others follow drawing.css. */
  get direction() {
    return this.depth === 1 ? { dir: 'auto' } : {};
  }

  /** What restore() takes. */
  save() {
    return this.#open.map((one) => ({ ...one, list: one.list && { ...one.list } }));
  }

  restore(saved) {
    this.#open = saved;
  }

  /** How many containers a line goes on in, and what it says in there. */
  follow(line) {
    let depth = 0;
    let rest = line;
    for (const one of this.#open) {
      const within = goesOn(one, rest);
      if (within === null) break;
      rest = within;
      count(one, line.length);
      depth += 1;
    }
    return { depth, rest };
  }

  /** A line goes on in all that is open. */
  grow(size) {
    for (const one of this.#open) count(one, size);
  }

  /** Closes what is deeper than `depth`. */
  close(depth) {
    this.#open.length = Math.min(depth, this.#open.length);
  }

  quote() {
    const { element } = this.#pen.element('blockquote', this.place(), this.direction);
    this.#open.push({ kind: 'quote', element, body: element, blocks: 0, size: 0 });
  }

  /** The list of the item that is open at `depth`. @returns {List | null} */
  list(depth) {
    return this.#open[depth]?.list ?? null;
  }

  /** Opens an item; in the list that was there before, if it is one of that. */
  item({ sign, start, offset, rest }, before) {
    const isSame = before?.sign === sign;
    const isRoom = isSame && before.items < MOST && before.size < FULL;
    const list = isRoom ? before : this.#list(sign, start, isSame ? before : null);
    list.items += 1;
    list.next += 1;
    const { element } = this.#pen.element('li', list.element);
    this.#open.push({ kind: 'item', element, body: element, blocks: 0, size: 0, list, offset, isEmpty: rest === '' });
  }

  /** `before` is the list that has grown long and goes on in this one. */
  #list(sign, start, before) {
    const next = before?.next ?? start;
    const properties = { ...this.direction };
    if (before) properties.className = 'goes-on';
    if (start !== null && next !== 1) properties.start = next;
    const { element } = this.#pen.element(start === null ? 'ul' : 'ol', this.place(), properties);
    return { element, sign, next, items: 0, size: 0 };
  }

  /** Where the next block goes: the innermost container, or another part of it if it has grown long. */
  place() {
    const top = this.#open.at(-1);
    if (top.body === null || top.blocks >= MOST || top.size >= FULL) this.#part(top);
    top.blocks += 1;
    return top.body;
  }

  /** Another part of a container, in sections of MOST parts: nothing in the page has more children than that. */
  #part(top) {
    const em = top.blocks + top.size * EM_OF_CHARACTER;
    if (top.section) this.#fill(top.body, em);
    if (!top.section || top.parts >= MOST) {
      if (top.section) this.#fill(top.section, top.em);
      Object.assign(top, { section: this.#pen.element('div', top.element, { className: 'part' }).element, parts: 0, em: 0 });
    }
    top.body = this.#pen.element('div', top.section, { className: 'part' }).element;
    Object.assign(top, { parts: top.parts + 1, em: top.em + em, blocks: 0, size: 0 });
  }

  #fill(element, em) {
    if (!this.#pen.isTrying) fill(element, em);
  }
}

function count(one, size) {
  one.size += size;
  if (one.list) one.list.size += size;
}

/** What a line says within a container; null where it does not go on in it. */
function goesOn(one, line) {
  if (one.kind === 'answer') return line;
  if (one.kind === 'quote') return marks.quote(line);
  if (marks.isBlank(line)) return one.isEmpty ? null : marks.dedent(line, one.offset);
  if (marks.indent(line) < one.offset) return null;
  one.isEmpty = false;
  return marks.dedent(line, one.offset);
}
