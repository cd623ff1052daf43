/**
 * The inside of a block: emphasis, code, links. marked makes it HTML, DOMPurify lets through what is named here.
 *
 * Raw HTML is shown as it is written (but <br>, a line break), images as links, LaTeX as it is written. Definitions of
 * links ([name]: address) are shown as they are written: what stands is not drawn anew for one that comes later.
 */
import { Marked } from '../vendor/marked.js';
import '../vendor/purify.js';
import { nodes, showUnseen } from './characters.js';
import { address, finishLinks } from './links.js';

// Once for all: nothing else in the page makes elements of text, and reading it anew takes as long as the cleaning.
globalThis.DOMPurify.setConfig({
  ALLOWED_TAGS: ['a', 'code', 'del', 'em', 'span', 'strong'],
  ALLOWED_ATTR: ['class', 'href'],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_TRUSTED_TYPE: true,
});
const MARKED = /[\\`*_~[\]<>&$@]|:\/\/|www\.|mailto:|xmpp:/i; // without one of these a text is what it says
const MATH = /^(?:\\\([^]+?\\\)|\\\[[^]+?\\\]|\$\$[^$]+\$\$|\$(?!\s)(?:[^$\n]*[^\s$\\])?\$(?!\d))/;
// marked's work grows with the square of what could begin or end something: measured, these keep it under some 20 ms.
const KNOTS = 300;
const LONGEST_WORD = 1500;
const WIDEST_GAP = 100;
const LONGEST_ADDRESS = 120; // of those that are shown and not linked
const ELLIPSIS = '…';

const escaped = (text) => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
const shortened = (text) => (text.length > LONGEST_ADDRESS ? text.slice(0, LONGEST_ADDRESS) + ELLIPSIS : text);

function link(href, content) {
  const url = address(href.replaceAll('&amp;', '&'));
  return url ? `<a href="${escaped(url.href)}">${content}</a>` : `${content} (${escaped(shortened(href))})`;
}

/** A marked of our own, so that nothing here depends on what others have set. */
function parser(imageLabel) {
  const marked = new Marked({ gfm: true, breaks: true });
  let linked = 0; // how many links the renderer is in: a link holds no other
  marked.use({
    tokenizer: {
      tag: (src) => (/^<br\s*\/?>/i.test(src) ? { type: 'br', raw: src.slice(0, src.indexOf('>') + 1) } : undefined),
      reflink: () => undefined,
    },
    renderer: {
      link({ href, tokens }) {
        linked += 1;
        try {
          return linked > 1 ? this.parser.parseInline(tokens) : link(href, this.parser.parseInline(tokens));
        } finally {
          linked -= 1;
        }
      },
      image({ href, text }) {
        const label = escaped(text ? `${imageLabel}: ${text}` : imageLabel);
        return linked ? label : link(href, label);
      },
      br: () => '\n', // shown as it stands: drawing.css
      codespan: ({ text }) => `<code>${escaped(text)}</code>`,
      html: ({ text }) => escaped(text),
    },
    extensions: [{
      name: 'math',
      level: 'inline',
      start: (src) => src.match(/\$|\\[([]/)?.index,
      tokenizer(src) {
        const found = MATH.exec(src);
        return found ? { type: 'math', raw: found[0] } : undefined;
      },
      renderer: ({ raw }) => `<span class="math">${escaped(raw)}</span>`,
    }],
  });
  return marked;
}

/** Whether marked would take too long over it. */
function isKnotted(text) {
  let knots = 0;
  let word = 0;
  let gap = 0;
  for (let at = 0; at < text.length; at += 1) {
    const one = text[at];
    if ('*_~`[]<\\&|!'.includes(one)) knots += 1;
    const isGap = one === ' ' || one === '\n' || one === '\t';
    word = isGap ? 0 : word + 1;
    gap = isGap ? gap + 1 : 0;
    if (knots > KNOTS || word > LONGEST_WORD || gap > WIDEST_GAP) return true;
  }
  return false;
}

/**
 * Gives the function that turns Markdown of one block, 4096 characters at most, into nodes. What is too knotted for
 * marked is shown as it is written.
 * @param {string} imageLabel what stands before the description of an image
 * @returns {(text: string) => DocumentFragment}
 */
export function inline(imageLabel) {
  const marked = parser(imageLabel);
  const template = document.createElement('template');
  const asWritten = (text) => {
    const fragment = document.createDocumentFragment();
    fragment.append(...nodes(text));
    return fragment;
  };
  return (text) => {
    if (!MARKED.test(text) || isKnotted(text)) return asWritten(text);
    try {
      template.innerHTML = globalThis.DOMPurify.sanitize(marked.parseInline(text));
    } catch (error) {
      if (error instanceof RangeError) return asWritten(text); // nested too deeply for the stack
      throw error;
    }
    const fragment = template.content;
    finishLinks(fragment);
    showUnseen(fragment);
    return fragment;
  };
}
