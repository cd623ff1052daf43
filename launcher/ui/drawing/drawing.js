/**
 * An answer in Markdown, drawn while it streams. What stands stays: a block that is complete is never drawn again, only the
 * last one is, once a frame. The work of a frame is bounded, however long the answer is and however it is cut.
 */
import { Blocks } from './blocks.js';
import { labels } from './labels.js';
import { Lines } from './lines.js';
import { Pen } from './pen.js';
import { TURN_MS, forget, wake } from './turns.js';

// What a turn draws at most: what the browser takes to lay it out is no part of the turn's time.
const MOST_CHARACTERS = 65536;
const MOST_NODES = 250;

export class Drawing {
  /** Milliseconds that drawing has taken, all in all. */
  drawMs = 0;
  /** When the first characters were on the screen, on the clock of performance.now(); null before. */
  drawnAt = null;
  isOver = false;
  #element;
  #texts;
  #onDrawn;
  #text = '';
  #lines;
  #pen;
  #blocks;
  #finished;

  /**
   * @param {HTMLElement} element an empty one of the page, which is the drawing's own from now on
   * @param {{onDrawn?: () => void, copyLabel?: string, copiedLabel?: string}} options `onDrawn` is called after every turn
   *   that has drawn; for the words see labels.js
   */
  constructor(element, { onDrawn = () => {}, ...texts } = {}) {
    this.#element = element;
    this.#texts = labels(texts);
    this.#onDrawn = onDrawn;
    element.classList.add('drawing');
    this.#begin();
  }

  /** The text as it came. */
  get text() {
    return this.#text;
  }

  /** What has been done: characters read as Markdown (of what was drawn anew each time), nodes made. */
  get work() {
    return { characters: this.#pen.characters, nodes: this.#pen.nodes };
  }

  /** Takes a piece of the stream, cut anywhere. */
  add(text) {
    if (this.isOver) throw new Error('Drawing.add() after end() or set(): the answer is over.');
    if (text === '') return;
    this.#text += text;
    this.#lines.put(text);
    wake(this);
  }

  /** The stream is over: what is open is drawn for good, at once if it fits a turn. @returns {Promise<void>} all is drawn */
  end() {
    if (!this.isOver) {
      this.isOver = true;
      this.#lines.end();
      if (this.turn(performance.now() + TURN_MS, false)) wake(this);
    }
    return this.#finished.promise;
  }

  /** Shows a whole answer in place of what there was, in turns. @returns {Promise<void>} all is drawn */
  set(text) {
    this.#begin();
    this.#text = text;
    this.isOver = true;
    this.#lines.put(text);
    this.#lines.end();
    wake(this);
    return this.#finished.promise;
  }

  /** Draws no more: the element is leaving the page. */
  stop() {
    forget(this);
    this.isOver = true;
    this.#finished.resolve();
  }

  /** Draws till `until`; see turns.js. @returns {boolean} whether there is more to draw */
  turn(until, isInFrame) {
    const began = performance.now();
    this.#blocks.retract();
    const isMore = this.#takeLines(until);
    if (!isMore && this.isOver) this.#blocks.end();
    else if (!isMore) this.#blocks.try(this.#lines.open);
    this.#blocks.write();
    this.#pen.settle();
    this.drawMs += performance.now() - began;
    if (this.drawnAt === null && this.#element.textContent) this.#mark(isInFrame);
    this.#onDrawn();
    if (!isMore && this.isOver) this.#finished.resolve();
    return isMore;
  }

  /** @returns {boolean} whether there may be more lines than there was time for */
  #takeLines(until) {
    const most = this.#pen.nodes + MOST_NODES;
    for (let taken = 0; taken < MOST_CHARACTERS && this.#pen.nodes < most && performance.now() < until;) {
      const part = this.#lines.next();
      if (part === null) return false;
      this.#blocks.take(part);
      taken += part.text.length + 1;
    }
    return true;
  }

  /** What is drawn in a frame is on the screen when the frame is over, all else after the next one. */
  #mark(isInFrame) {
    this.drawnAt = performance.now();
    if (document.hidden) return;
    const after = () => setTimeout(() => { this.drawnAt = performance.now(); });
    if (isInFrame) after();
    else requestAnimationFrame(after);
  }

  #begin() {
    forget(this);
    this.#finished?.resolve();
    this.#finished = Promise.withResolvers();
    this.isOver = false;
    this.drawnAt = null;
    this.drawMs = 0;
    this.#text = '';
    this.#element.replaceChildren();
    this.#lines = new Lines();
    this.#pen = new Pen(this.#texts);
    this.#blocks = new Blocks(this.#pen, this.#element);
  }
}
