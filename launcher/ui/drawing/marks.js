/** What a line of Markdown begins: pure, one line at a time. A tab goes to the next of every four columns. */

export const isBlank = (line) => !/[^ \t]/.test(line);

/** How many columns of space a line begins with. */
export function indent(line) {
  let columns = 0;
  for (const one of line) {
    if (one === ' ') columns += 1;
    else if (one === '\t') columns += 4 - (columns % 4);
    else break;
  }
  return columns;
}

/** The line without its first `columns` of space, or without what space it has. */
export function dedent(line, columns) {
  let gone = 0;
  let at = 0;
  for (; gone < columns && (line[at] === ' ' || line[at] === '\t'); at += 1) gone += line[at] === '\t' ? 4 - (gone % 4) : 1;
  return ' '.repeat(Math.max(0, gone - columns)) + line.slice(at);
}

/** What stands after the mark of a quote; null where there is none. */
export function quote(line) {
  const found = /^ {0,3}>/.exec(line);
  return found ? dedent(line.slice(found[0].length), 1) : null;
}

/**
 * The mark of a list's item.
 * @returns {{sign: string, start: number | null, offset: number, rest: string} | null} `sign` tells lists apart, `start` is
 *   null but in numbered ones, `offset` is the column where the item's text begins.
 */
export function bullet(line) {
  const found = /^( {0,3})(?:([-+*])|(\d{1,9})([.)]))(?=[ \t]|$)/.exec(line);
  if (!found) return null;
  const after = line.slice(found[0].length);
  const space = indent(after);
  const pad = isBlank(after) || space > 4 ? 1 : space;
  return {
    sign: found[2] ?? found[4],
    start: found[3] === undefined ? null : Number(found[3]),
    offset: found[0].length + pad,
    rest: isBlank(after) ? '' : dedent(after, pad),
  };
}

/** A line across: ---, ***, ___. */
export const isRule = (line) => /^ {0,3}(?:(?:-[ \t]*){3,}|(?:_[ \t]*){3,}|(?:\*[ \t]*){3,})$/.test(line);

/** @returns {{level: number, text: string} | null} */
export function heading(line) {
  const found = /^ {0,3}(#{1,6})(?=[ \t]|$)(.*)$/.exec(line);
  return found ? { level: found[1].length, text: found[2].replace(/[ \t]#+[ \t]*$/, '').trim() } : null;
}

/** The level of the heading that such a line makes of the paragraph above it; 0 for none. */
export function underline(line) {
  const found = /^ {0,3}(=+|-+)[ \t]*$/.exec(line);
  if (!found) return 0;
  return found[1][0] === '=' ? 1 : 2;
}

/** @returns {{sign: string, length: number, indent: number, language: string} | null} */
export function fence(line) {
  const found = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})(.*)$/.exec(line);
  if (!found) return null;
  const language = found[3].trim().split(/[\s{,]/, 1)[0].slice(0, 32);
  return { sign: found[2][0], length: found[2].length, indent: found[1].length, language };
}

/** Whether the line closes the fence. */
export function closes(open, line) {
  const found = /^ {0,3}(`+|~+)[ \t]*$/.exec(line);
  return found !== null && found[1][0] === open.sign && found[1].length >= open.length;
}

/** A formula on lines of its own: what will close it, and whether this line does. */
export function formula(line) {
  const found = /^ {0,3}(\$\$|\\\[)/.exec(line);
  if (!found) return null;
  const closing = found[1] === '$$' ? '$$' : '\\]';
  const rest = line.slice(found[0].length).trimEnd();
  const at = rest.indexOf(closing);
  if (at >= 0 && at !== rest.length - 2) return null; // words follow: a paragraph that begins with a formula
  return { closing, closed: at >= 0 };
}

/** How the columns of a table are aligned: '', 'start', 'center' or 'end' each; null where the line says nothing of the kind. */
export function columns(line) {
  if (!/^ {0,3}[|:-][-:| \t]*$/.test(line) || !line.includes('-') || !/[|:]/.test(line)) return null;
  const found = cells(line);
  if (!found.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return found.map((cell) => {
    if (cell.endsWith(':')) return cell.startsWith(':') ? 'center' : 'end';
    return cell.startsWith(':') ? 'start' : '';
  });
}

/** The cells of a table's row, trimmed; \| is a | that parts nothing. */
export function cells(line) {
  const inner = line.trim().replace(/^\|/, '').replace(/(?<!\\)\|$/, '');
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll('\\|', '|'));
}

/** Whether a line that may still grow says too little of what it begins: it is shown when more has come. */
export function isUnclear(line) {
  return /^[-=*_+#>`~|:$\\\s]*$/.test(line) || /^[\s>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(?:```|~~~)/.test(line);
}

/** Whether a line within a fence may still become the one that closes it. */
export const mayClose = (line) => /^[\s>]*[`~]*[ \t]*$/.test(line);
