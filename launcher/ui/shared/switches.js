/** The choices of language and colours, which both pages have. */
import { html, useEffect, useReducer } from './dom.js';
import { choose, setting } from './settings.js';
import { LANGUAGES, language, texts } from './words.js';

const t = texts({
  language: { en: 'Language', zh: '语言' },
  theme: { en: 'Colours', zh: '配色' },
  auto: { en: 'as the system', zh: '跟随系统' },
  light: { en: 'light', zh: '浅色' },
  dark: { en: 'dark', zh: '深色' },
});

/** Draws the page that calls it anew in another language. */
export function useLanguage() {
  const [, draw] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    const changed = () => { document.documentElement.lang = language(); draw(); };
    changed();
    addEventListener('launcher:language', changed);
    return () => removeEventListener('launcher:language', changed);
  }, []);
}

/** Two selects; see useLanguage(). */
export function Switches() {
  return html`
    <label class="field">${t('language')}
      <select id="language" onChange=${(event) => choose('language', event.target.value)}>
        ${Object.entries(LANGUAGES).map(([tag, name]) => html`
          <option value=${tag} lang=${tag} selected=${tag === language()}>${name}</option>`)}
      </select>
    </label>
    <label class="field">${t('theme')}
      <select id="theme" onChange=${(event) => choose('theme', event.target.value)}>
        ${['', 'light', 'dark'].map((theme) => html`
          <option value=${theme} selected=${theme === setting('theme')}>${t(theme || 'auto')}</option>`)}
      </select>
    </label>`;
}
