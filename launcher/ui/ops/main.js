/** Begins the operator's page. */
import { html, render } from '../shared/dom.js';
import { App } from './app.js';

render(html`<${App} />`, document.getElementById('page'));
