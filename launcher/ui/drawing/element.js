/** An element with properties and children: no attribute ever comes from an answer, but what a link leads to. */
export function make(tag, properties = {}, children = []) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A part takes no more: the browser need not lay it out while it is out of sight. `em` is about its height. */
export function fill(element, em) {
  element.classList.add('full');
  element.style.containIntrinsicBlockSize = `auto ${Math.ceil(em)}em`;
}
