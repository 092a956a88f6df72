// Building elements. Text from devices and people reaches the page only as text nodes: there is no HTML here.

import { bindAttribute, bindText, type Dictionary } from '../i18n';

type Attributes = Record<string, string | number | boolean | null | undefined>;
type Child = Node | string | null;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.filter((c): c is Node | string => c !== null));
  return node;
}

/** An element whose text follows the language. */
export function label<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes,
  text: (t: Dictionary) => string,
): HTMLElementTagNameMap[K] {
  return bindText(h(tag, attributes), text);
}

/** A button with a text that follows the language. */
export function button(attributes: Attributes, text: (t: Dictionary) => string, press: () => void): HTMLButtonElement {
  const node = bindText(h('button', { type: 'button', ...attributes }), text);
  node.addEventListener('click', press);
  return node;
}

/** A button with a picture; its name is for pointers and screen readers. */
export function iconButton(
  attributes: Attributes,
  icon: Node,
  name: (t: Dictionary) => string,
  press: () => void,
): HTMLButtonElement {
  const node = h('button', { type: 'button', ...attributes }, icon);
  node.classList.add('icon-button');
  bindAttribute(node, 'aria-label', name);
  bindAttribute(node, 'title', name);
  node.addEventListener('click', press);
  return node;
}

/** Writes only what differs: most draws change little. */
export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node: Element, name: string, value: string | null): void {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Makes `parent` hold exactly `wanted`, in order, moving only what is out of place. */
export function arrange(parent: Element, wanted: readonly Element[]): void {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((node, i) => {
    if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null);
  });
}
