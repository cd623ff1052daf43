/** The page's texts in English and Chinese. Each page has its own table; this chooses from it. */
import { setting } from './settings.js';

export const LANGUAGES = { en: 'English', zh: '中文' };

/** The language that is shown: the user's choice, or the first of the browser's that there is. */
export function language() {
  const chosen = setting('language');
  if (chosen in LANGUAGES) return chosen;
  const wanted = (navigator.languages ?? [navigator.language]).map((tag) => tag.toLowerCase().split('-')[0]);
  return wanted.find((tag) => tag in LANGUAGES) ?? 'en';
}

/**
 * Reads a table {key: {en, zh}}. The function that it returns gives a text in the language that is shown, `{name}` in it
 * replaced by values. A key that is not there is a bug of ours and shows as itself.
 * @param {Record<string, {en: string, zh: string}>} table
 * @returns {(key: string, values?: Record<string, string | number>) => string}
 */
export function texts(table) {
  return (key, values = {}) => {
    const text = table[key]?.[language()] ?? key;
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  };
}

const formats = new Map(); // making one takes longer than all that it is used for

/** A number as people of the language write it. */
export function number(value, digits = 0) {
  const name = `${language()} ${digits}`;
  if (!formats.has(name)) formats.set(name, new Intl.NumberFormat(language(), { maximumFractionDigits: digits }));
  return formats.get(name).format(value);
}

/** A duration in milliseconds, in a unit that suits it: 0.4 ms, 23 ms, 1.24 s, 2 min 5 s. */
export function duration(ms) {
  if (ms < 10) return `${number(ms, 1)} ms`;
  if (ms < 1000) return `${number(ms)} ms`;
  if (ms < 60_000) return `${number(ms / 1000, ms < 10_000 ? 2 : 1)} s`;
  return `${number(Math.floor(ms / 60_000))} min ${number(Math.floor(ms / 1000) % 60)} s`;
}

/** Bytes: 940 B, 12 KiB, 3.1 MiB, 21 GiB. */
export function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  for (; count >= 1024 && at < units.length - 1; at += 1) count /= 1024;
  return `${number(count, count < 10 && at ? 1 : 0)} ${units[at]}`;
}
