// The chosen language. Fixed labels are bound to their elements and follow a switch by themselves; texts made of
// values are written by the view that owns them, which reads `texts()` each time it draws.

import { en, type Dictionary } from './en';
import { zh } from './zh';

export type { Dictionary } from './en';
export type Language = 'en' | 'zh';

const DICTIONARIES: Record<Language, Dictionary> = { en, zh };
const REMEMBERED = 'kerbside.language';

let current: Language = 'en';
const listeners = new Set<() => void>();
type Bound = { node: WeakRef<Element>; write: (node: Element, t: Dictionary) => void };
let bound: Bound[] = [];

/** The language remembered on this screen, or the browser's. */
export function preferredLanguage(remembered: string | null, browser: readonly string[]): Language {
  if (remembered === 'en' || remembered === 'zh') return remembered;
  return browser[0]?.toLowerCase().startsWith('zh') ? 'zh' : 'en';
}

export function startLanguage(): void {
  apply(preferredLanguage(localStorage.getItem(REMEMBERED), navigator.languages));
}

export function switchLanguage(): void {
  apply(current === 'en' ? 'zh' : 'en');
  localStorage.setItem(REMEMBERED, current);
}

export function texts(): Dictionary {
  return DICTIONARIES[current];
}

export function onLanguage(listener: () => void): void {
  listeners.add(listener);
}

/** Writes a text now and again at every switch, for as long as the element lives. */
export function bindText<E extends Element>(node: E, text: (t: Dictionary) => string): E {
  return bind(node, (n, t) => (n.textContent = text(t)));
}

export function bindAttribute<E extends Element>(node: E, name: string, text: (t: Dictionary) => string): E {
  return bind(node, (n, t) => n.setAttribute(name, text(t)));
}

function bind<E extends Element>(node: E, write: (node: Element, t: Dictionary) => void): E {
  write(node, texts());
  bound.push({ node: new WeakRef(node), write });
  return node;
}

function apply(language: Language): void {
  current = language;
  const t = texts();
  document.documentElement.lang = t.language;
  document.title = `${t.product} · ${t.productSub}`;
  bound = bound.filter(({ node, write }) => {
    const alive = node.deref();
    if (alive !== undefined) write(alive, t);
    return alive !== undefined;
  });
  for (const listener of listeners) listener();
}
