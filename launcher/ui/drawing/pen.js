/**
 * Puts blocks into the page. What was drawn on trial, for a line that has not ended, is taken back before the next drawing,
 * and stays where it is if the same is drawn again: an element that is still right is never made anew.
 */
import { nodes } from './characters.js';
import { make } from './element.js';
import { inline } from './inline.js';
import { cells } from './marks.js';

/** @typedef {{element: Element, key: string, parent: Element, shown: string | null}} Spot a block in the page, and the text that it shows */

const TASK = /^\[([ xX])\][ \t]+(?=\S)/;

export class Pen {
  isTrying = false;
  characters = 0; // that were read as Markdown, all in all
  nodes = 0; // that were made, all in all, but those within marks of text
  #inline;
  #tried = [];
  #kept = [];

  constructor(texts) {
    this.texts = texts;
    this.#inline = inline(texts.imageLabel);
  }

  /**
   * The last child of `parent`, made by `build` unless it is there from the trial before.
   * @param {string} key what it is: another key is never the same
   * @param {() => {element: Element}} build
   * @param {number} weight how many nodes it makes
   */
  make(key, parent, build, weight = 1) {
    const kept = this.#kept[0];
    const isSame = kept !== undefined && kept.key === key && kept.parent === parent;
    if (!isSame) this.settle();
    const spot = isSame ? this.#kept.shift() : Object.assign(build(), { key, parent, shown: null });
    if (!isSame) parent.append(spot.element);
    if (!isSame) this.nodes += weight;
    if (this.isTrying) this.#tried.push(spot);
    return spot;
  }

  /** Like make(), of a plain element. */
  element(tag, parent, properties = {}) {
    return this.make(`${tag} ${JSON.stringify(properties)}`, parent, () => ({ element: make(tag, properties) }));
  }

  /** Takes the trial back; what it made stays till settle(), to be used again. */
  retract() {
    this.#kept = this.#tried;
    this.#tried = [];
  }

  /** Removes what was taken back and is not used again. */
  settle() {
    for (const spot of this.#kept) spot.element.remove();
    this.#kept = [];
  }

  /** Shows Markdown in a spot. `isTask`: it may begin with the box of a task. */
  write(spot, text, isTask = false) {
    if (spot.shown === text) return;
    spot.shown = text;
    this.characters += text.length;
    const task = isTask ? TASK.exec(text) : null;
    const fragment = this.#inline(task ? text.slice(task[0].length) : text);
    if (task) {
      spot.parent.className = 'task';
      fragment.prepend(this.#box(task[1] !== ' '));
    }
    this.nodes += exchange(spot.element, fragment);
  }

  /** Shows a text in a spot as it is. */
  copy(spot, text) {
    if (spot.shown === text) return;
    spot.shown = text;
    const fragment = document.createDocumentFragment();
    fragment.append(...nodes(text));
    this.nodes += exchange(spot.element, fragment);
  }

  /** A table without rows. @returns {Element} what takes them */
  table(parent, head, align) {
    const label = this.texts.tableLabel;
    const around = this.element('div', parent, { className: 'table', tabIndex: 0, role: 'group', ariaLabel: label }).element;
    const table = this.element('table', around, { dir: 'auto' }).element;
    this.row(this.element('tr', this.element('thead', table).element), head, 'th', align);
    return this.element('tbody', table).element;
  }

  /** Shows a row in a spot; cells that it lacks are left out. @param {'td' | 'th'} tag @param {string[]} align of columns */
  row(spot, line, tag, align) {
    if (spot.shown === line) return;
    spot.shown = line;
    this.characters += line.length;
    const texts = cells(line).slice(0, align.length);
    texts.forEach((text, column) => {
      const cell = spot.element.children[column] ?? spot.element.appendChild(cellOf(tag, align[column]));
      this.nodes += 1 + exchange(cell, this.#inline(text));
    });
    while (spot.element.children.length > texts.length) spot.element.lastChild.remove();
  }

  #box(isDone) {
    const label = isDone ? this.texts.doneLabel : this.texts.toDoLabel;
    return make('input', { type: 'checkbox', disabled: true, defaultChecked: isDone, ariaLabel: label });
  }
}

function cellOf(tag, side) {
  const cell = make(tag, { dir: 'auto', ...(side && { className: `at-${side}` }) });
  if (tag === 'th') cell.scope = 'col';
  return cell;
}

/**
 * Gives an element the children of a fragment; those that are the same stay, so that what a reader has selected does too.
 * @returns {number} how many are new
 */
function exchange(element, fragment) {
  let old = element.firstChild;
  while (old && fragment.firstChild?.isEqualNode(old)) {
    fragment.firstChild.remove();
    old = old.nextSibling;
  }
  const next = fragment.firstChild;
  if (old instanceof Text && next instanceof Text && next.data.startsWith(old.data)) {
    old.appendData(next.data.slice(old.length));
    next.remove();
    old = old.nextSibling;
  }
  while (old) {
    const after = old.nextSibling;
    old.remove();
    old = after;
  }
  const count = fragment.childNodes.length;
  element.append(fragment);
  return count;
}
