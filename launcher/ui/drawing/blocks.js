/**
 * Reads Markdown line by line and draws its blocks, each once. Containers are open while lines go on in them; of leaves
 * (paragraph, code, table, formula) one is open at most. What is closed is never touched again.
 *
 * It is CommonMark's way of reading blocks, with GitHub's tables and tasks. It differs where a long answer asks for it:
 * items are drawn the same whether their list is loose or tight; there is no raw HTML and no definition of links; containers
 * nest DEEPEST deep, further marks are text; a long paragraph goes on in another.
 */
import { Code } from './code.js';
import { Containers, FULL, MOST } from './containers.js';
import { LONGEST } from './lines.js';
import * as marks from './marks.js';

const DEEPEST = 12;
const WIDEST = 40; // columns of a table
const MOST_LINES = 256; // of a paragraph

export class Blocks {
  #pen;
  #within;
  #leaf = null;
  #saved = null;

  /** @param {import('./pen.js').Pen} pen @param {Element} root */
  constructor(pen, root) {
    this.#pen = pen;
    this.#within = new Containers(pen, root);
  }

  /** Draws a part of a line. @param {import('./lines.js').Part} part */
  take({ text, first, last }) {
    if (first) this.#line(text, last);
    else this.#more(text, last);
  }

  /** Draws a line as far as it has come; retract() takes it back. @param {import('./lines.js').Part} part */
  try(part) {
    const code = this.#leaf?.code;
    this.#saved = { within: this.#within.save(), leaf: this.#leaf && { ...this.#leaf } };
    this.#pen.isTrying = true;
    const isUnclear = part.first && (code ? marks.mayClose(part.text) : marks.isUnclear(part.text));
    if (part.text && !isUnclear) this.take(part);
    else code?.show('');
    this.write();
    this.#pen.isTrying = false;
  }

  retract() {
    if (this.#saved === null) return;
    this.#within.restore(this.#saved.within);
    this.#leaf = this.#saved.leaf;
    this.#saved = null;
    this.#pen.retract();
  }

  /** Shows what the open leaf holds. */
  write() {
    const leaf = this.#leaf;
    if (leaf?.kind === 'paragraph') this.#pen.write(leaf.spot, leaf.text.trimEnd(), leaf.isTask);
    else if (leaf?.kind === 'formula') this.#pen.copy(leaf.spot, leaf.text);
  }

  /** The answer is over. */
  end() {
    this.#cut(1);
  }

  #line(text, last) {
    const { depth, rest } = this.#within.follow(text);
    const isWhole = depth === this.#within.depth;
    if (isWhole && this.#isVerbatim(rest, last)) return;
    const inner = this.#enter(depth, rest);
    this.#block({ ...inner, isWhole: isWhole && !inner.isFresh });
  }

  /** What follows the first part of a long line. */
  #more(text, last) {
    this.#within.grow(text.length);
    if (this.#leaf?.kind === 'code') this.#grow(text, last);
    else if (!marks.isBlank(text)) this.#paragraph(this.#within.depth, text, 'goes-on');
  }

  /** Opens the containers that the line begins. */
  #enter(depth, rest) {
    let isFresh = false;
    while (depth < DEEPEST && marks.indent(rest) < 4) {
      const quoted = marks.quote(rest);
      const item = quoted !== null || marks.isRule(rest) ? null : marks.bullet(rest);
      if (quoted === null && (item === null || (!isFresh && this.#isNoItem(item, depth)))) break;
      const list = this.#within.list(depth);
      this.#cut(depth);
      if (item) this.#within.item(item, list);
      else this.#within.quote();
      rest = quoted ?? item.rest;
      isFresh = true;
      depth += 1;
    }
    return { depth, rest, isFresh };
  }

  /** A paragraph is not interrupted by an empty item, nor by a number but 1: it may be a year at a line's beginning. */
  #isNoItem(item, depth) {
    const isWithin = depth === this.#within.depth && this.#leaf?.kind === 'paragraph';
    return isWithin && (item.rest === '' || (item.start !== null && item.start !== 1));
  }

  #block({ depth, rest, isFresh, isWhole }) {
    if (marks.isBlank(rest)) {
      if (!isFresh) this.#cut(depth);
      return;
    }
    const isParagraph = this.#leaf?.kind === 'paragraph';
    const isIndented = marks.indent(rest) >= 4;
    if (isWhole && isParagraph && (this.#isUnderline(rest) || this.#isTable(rest))) return;
    if (!isIndented && this.#isOwnLine(depth, rest)) return;
    if (isParagraph && !isFresh) this.#lengthen(rest); // also where it leaves out the marks of the containers
    else if (isWhole && this.#leaf?.kind === 'table') this.#row(rest);
    else if (isIndented) this.#indented(depth, rest);
    else this.#paragraph(depth, rest.trimStart());
  }

  /** Headings, rules, and the first lines of code and formulas. */
  #isOwnLine(depth, rest) {
    const heading = marks.heading(rest);
    const fence = marks.fence(rest);
    const formula = marks.formula(rest);
    if (!heading && !fence && !formula && !marks.isRule(rest)) return false;
    this.#cut(depth);
    if (heading) this.#heading(heading);
    else if (fence) this.#leaf = this.#code(fence.language, { fence });
    else if (formula) this.#formula(rest, formula);
    else this.#pen.element('hr', this.#within.place());
    return true;
  }

  #heading({ level, text }) {
    const { direction } = this.#within;
    const tag = `h${Math.min(level + 2, 6)}`; // the page has h1 and h2 of its own
    this.#pen.write(this.#pen.element(tag, this.#within.place(), direction), text);
  }

  #paragraph(depth, text, className = '') {
    this.#cut(depth);
    const isTask = this.#within.isItemsFirst;
    const properties = { ...this.#within.direction, ...(className && { className }) };
    this.#leaf = { kind: 'paragraph', spot: this.#pen.element('p', this.#within.place(), properties), text, isTask, lines: 1 };
  }

  #lengthen(rest) {
    const text = `${this.#leaf.text}\n${rest.trimStart()}`;
    const lines = this.#leaf.lines + 1;
    if (text.length > LONGEST || lines > MOST_LINES) this.#paragraph(this.#within.depth, rest.trimStart(), 'goes-on');
    else Object.assign(this.#leaf, { text, lines });
  }

  /** Whether the line makes the paragraph above it a heading. */
  #isUnderline(rest) {
    const level = marks.underline(rest);
    if (level === 0) return false;
    const { text, spot } = this.#leaf;
    this.#leaf = null;
    spot.element.remove();
    this.#heading({ level, text });
    return true;
  }

  /** Whether the line makes the paragraph's last line a table's head, by saying how its columns are aligned. */
  #isTable(rest) {
    const align = marks.columns(rest);
    if (align === null || align.length > WIDEST) return false;
    const lines = this.#leaf.text.split('\n');
    const head = lines.pop();
    if (marks.cells(head).length !== align.length) return false;
    if (lines.length) this.#leaf.text = lines.join('\n');
    else this.#leaf.spot.element.remove();
    if (lines.length) this.#cut(this.#within.depth);
    this.#table(head, align);
    return true;
  }

  #table(head, align) {
    this.#leaf = { kind: 'table', head, align, body: this.#pen.table(this.#within.place(), head, align), rows: 0, size: 0 };
  }

  #row(line) {
    if (this.#leaf.rows >= MOST || this.#leaf.size >= FULL) this.#table(this.#leaf.head, this.#leaf.align);
    const leaf = this.#leaf;
    this.#pen.row(this.#pen.element('tr', leaf.body), line, 'td', leaf.align);
    leaf.rows += 1;
    leaf.size += line.length;
  }

  #indented(depth, rest) {
    this.#cut(depth);
    this.#leaf = this.#code('', { fence: null, blanks: 0 });
    this.#grow(marks.dedent(rest, 4), true);
  }

  #code(language, more) {
    const { code } = this.#pen.make(`code ${language}`, this.#within.place(), () => {
      const made = new Code(language, this.#pen.texts);
      return { element: made.element, code: made };
    }, 8);
    return { kind: 'code', code, ...more };
  }

  #grow(text, last) {
    if (this.#pen.isTrying) this.#leaf.code.show(text);
    else this.#leaf.code.add(last ? `${text}\n` : text);
  }

  /** Whether the line belongs to code or to a formula, which take it as it is. */
  #isVerbatim(rest, last) {
    if (this.#leaf?.kind === 'formula') return this.#isFormulas(rest);
    if (this.#leaf?.kind !== 'code') return false;
    return this.#leaf.fence ? this.#isFenced(rest, last) : this.#isIndented(rest, last);
  }

  #isFenced(rest, last) {
    const { fence } = this.#leaf;
    if (last && marks.closes(fence, rest)) this.#cut(this.#within.depth);
    else this.#grow(marks.dedent(rest, fence.indent), last);
    return true;
  }

  #isIndented(rest, last) {
    const isBlank = marks.isBlank(rest);
    if (!isBlank && marks.indent(rest) < 4) return false;
    if (!isBlank) this.#grow('\n'.repeat(this.#leaf.blanks) + marks.dedent(rest, 4), last);
    this.#leaf.blanks = isBlank ? this.#leaf.blanks + 1 : 0; // those at its end are not the code's
    return true;
  }

  #formula(text, { closing, closed }, className = 'math') {
    this.#leaf = { kind: 'formula', spot: this.#pen.element('p', this.#within.place(), { className }), text, closing };
    if (closed) this.#cut(this.#within.depth);
  }

  #isFormulas(rest) {
    if (marks.isBlank(rest)) return false;
    const { text, closing } = this.#leaf;
    const closed = rest.trimEnd().endsWith(closing);
    const isLong = text.length + rest.length >= LONGEST;
    if (!isLong) this.#leaf.text = `${text}\n${rest}`;
    if (isLong || closed) this.#cut(this.#within.depth);
    if (isLong) this.#formula(rest, { closing, closed }, 'math goes-on');
    return true;
  }

  /** Closes the leaf, and the containers deeper than `depth`. */
  #cut(depth) {
    this.write();
    if (!this.#pen.isTrying) this.#leaf?.code?.end();
    this.#leaf = null;
    this.#within.close(depth);
  }
}
