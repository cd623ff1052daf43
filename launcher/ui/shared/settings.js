/**
 * What a user has chosen, kept in this browser: language, theme, the mode, and the like. Never a key: see api.js.
 * Where storage is switched off, choices hold until the page is left.
 */
const here = new Map();

/** @param {string} name @param {string} otherwise @returns {string} */
export function setting(name, otherwise = '') {
  try {
    return localStorage.getItem(`launcher.${name}`) ?? here.get(name) ?? otherwise;
  } catch {
    return here.get(name) ?? otherwise;
  }
}

/** Keeps a choice; '' forgets it. Fires `launcher:NAME` on the window. */
export function choose(name, value) {
  here.set(name, value);
  try {
    if (value === '') localStorage.removeItem(`launcher.${name}`);
    else localStorage.setItem(`launcher.${name}`, value);
  } catch { /* it holds until the page is left */ }
  dispatchEvent(new Event(`launcher:${name}`));
}
