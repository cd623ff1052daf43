/** A conversation as a file: Markdown of what is shown, or JSON of all of it, every variant included. */
import { path, titleOf } from './tree.js';
import { t } from './words.js';

/** @returns {string} */
export function asMarkdown(conversation) {
  const parts = [`# ${titleOf(conversation)}`];
  for (const node of path(conversation)) {
    const pictures = (node.pictures ?? []).map(({ name, told }) => `*${t('picture', { name })}${told ? `, ${told.width_in}×${told.height_in}` : ''}*`);
    const reasoning = node.reasoning ? [`> ${node.reasoning.trim().replaceAll('\n', '\n> ')}`] : [];
    parts.push(`## ${node.role === 'user' ? t('you') : t('reply')}`, ...pictures, ...reasoning, node.text);
  }
  return `${parts.join('\n\n')}\n`;
}

/** @returns {string} */
export function asJson(conversation) {
  return `${JSON.stringify(conversation, null, 2)}\n`;
}

/** A name for its file, of letters that every file system takes. */
export function fileName(conversation, ending) {
  const words = titleOf(conversation).replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 40);
  return `${words || 'conversation'}.${ending}`;
}
