// A drop-down for filters.

import { bindAttribute, bindText, type Dictionary } from '../i18n';
import { h } from './dom';

/** A drop-down whose first entry takes everything. */
export class Choice {
  readonly node: HTMLSelectElement;
  private offered = '';

  constructor(
    testId: string,
    name: (t: Dictionary) => string,
    private readonly text: (value: string, t: Dictionary) => string,
    changed: () => void,
  ) {
    this.node = h('select', { 'data-testid': testId }, bindText(h('option', { value: '' }), name));
    bindAttribute(this.node, 'aria-label', name);
    this.node.addEventListener('change', changed);
  }

  offer(values: readonly string[]): void {
    const key = values.join('\n');
    if (key === this.offered) return;
    this.offered = key;
    const chosen = this.node.value;
    const all = this.node.options[0] as HTMLOptionElement;
    this.node.replaceChildren(
      all,
      ...values.map((v) => bindText(h('option', { value: v }), (t) => this.text(v, t))),
    );
    this.node.value = values.includes(chosen) ? chosen : '';
  }

  accepts(value: string): boolean {
    return this.node.value === '' || this.node.value === value;
  }
}
