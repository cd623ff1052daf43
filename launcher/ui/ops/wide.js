/** What may be wider than the screen: scrolled by itself, with the keyboard too, so that the page never is. */
import { html, useEffect, useRef } from '../shared/dom.js';

/** @param {{name: string, children: any}} props `name` is read out where it can be scrolled. */
export function Wide({ name, children }) {
  const box = useRef(null);
  useEffect(() => {
    const own = box.current;
    const measured = () => { // a place to stop at with the tab key only where there is something to scroll
      if (own.scrollWidth > own.clientWidth) own.tabIndex = 0;
      else own.removeAttribute('tabindex');
    };
    const watching = new ResizeObserver(measured);
    watching.observe(own);
    watching.observe(own.firstElementChild);
    return () => watching.disconnect();
  }, []);
  return html`<div class="wide" ref=${box} role="group" aria-label=${name}>${children}</div>`;
}
