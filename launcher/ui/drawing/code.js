/** A block of code: its language, a button that copies it, and the text, which only grows. */
import { isSuspect, nodes, seen } from './characters.js';
import { copied } from '../shared/clipboard.js';
import { fill, make } from './element.js';

const FULL = 8192; // characters of a piece; the browser lays out one piece at a time, and none that is out of sight
const OVERFULL = 32768; // of one that found no line's end to stop at
const MOST_LINES = 256;
const EM_OF_LINE = 1.45;

export class Code {
  #code;
  #piece = null;
  #size = 0;
  #lines = 0;
  #tail = document.createTextNode(''); // of the line that has not ended
  #raw = [];
  #open = '';

  /** @param {string} language '' for none */
  constructor(language, texts) {
    const name = seen(language);
    const label = name ? `${texts.codeLabel}: ${name}` : texts.codeLabel;
    this.#code = make('code', { dir: 'ltr' });
    this.element = make('div', { className: 'code' }, [
      make('div', { className: 'code-head' }, [
        make('span', { className: 'code-language', textContent: name }),
        this.#button(name, texts),
      ]),
      make('pre', { tabIndex: 0, role: 'group', ariaLabel: label }, [this.#code]),
    ]);
  }

  /** The text as it came, with what cannot be seen. */
  get text() {
    return this.#raw.join('') + this.#open;
  }

  /** What stands for good. */
  add(text) {
    this.#raw.push(text);
    this.show('');
    if (this.#piece === null) this.#begin();
    const last = this.#tail.previousSibling;
    if (!isSuspect(text) && last instanceof Text) last.appendData(text);
    else this.#tail.before(...nodes(text));
    this.#size += text.length;
    this.#lines += 1;
    const isFull = text.endsWith('\n') ? this.#size >= FULL || this.#lines >= MOST_LINES : this.#size >= OVERFULL;
    if (!isFull) return;
    fill(this.#piece, this.#lines * EM_OF_LINE);
    this.#piece = null;
  }

  /** What there is of the line that has not ended, in place of what there was. */
  show(text) {
    this.#open = text;
    if (text && this.#piece === null) this.#begin();
    const shown = seen(text);
    if (shown === this.#tail.data) return;
    if (shown.startsWith(this.#tail.data)) this.#tail.appendData(shown.slice(this.#tail.length));
    else this.#tail.data = shown;
  }

  /** Nothing more will come. */
  end() {
    this.#open = '';
    this.#tail.remove();
  }

  #begin() {
    this.#piece = make('span', { className: 'part' }, [this.#tail]);
    this.#size = 0;
    this.#lines = 0;
    this.#code.append(this.#piece);
  }

  #button(name, texts) {
    const word = make('span', { ariaLive: 'polite', textContent: texts.copyLabel });
    const button = make('button', { type: 'button', className: 'quiet' }, [word]);
    if (name) button.append(make('span', { className: 'out-of-sight', textContent: ` ${name}` }));
    let timer = 0;
    button.addEventListener('click', async () => {
      word.textContent = (await copied(this.text)) ? texts.copiedLabel : texts.notCopiedLabel;
      clearTimeout(timer);
      timer = setTimeout(() => { word.textContent = texts.copyLabel; }, 2000);
    });
    return button;
  }
}
