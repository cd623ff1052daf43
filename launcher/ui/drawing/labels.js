/** The words that a drawing adds to an answer, where the page gives none of its own. */
import { texts } from '../shared/words.js';

const TABLE = {
  copyLabel: { en: 'Copy', zh: '复制' },
  copiedLabel: { en: 'Copied', zh: '已复制' },
  notCopiedLabel: { en: 'This browser does not let the page copy.', zh: '此浏览器不允许页面复制。' },
  codeLabel: { en: 'Code', zh: '代码' },
  tableLabel: { en: 'Table', zh: '表格' },
  imageLabel: { en: 'Image', zh: '图片' },
  doneLabel: { en: 'Done', zh: '已完成' },
  toDoLabel: { en: 'To do', zh: '待办' },
};

/** All of them in the language that is shown. @returns {Record<string, string>} */
export function labels(own = {}) {
  const t = texts(TABLE);
  return { ...Object.fromEntries(Object.keys(TABLE).map((key) => [key, t(key)])), ...own };
}
