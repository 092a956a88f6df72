// Orders to the selected device: a message, live video on or off, and how far the last ones came.

import * as api from '../api';
import type { Order } from '../contract';
import { clockTime, named } from '../format';
import { bindAttribute, texts } from '../i18n';
import { rungs } from '../orders';
import type { Context } from './context';
import { arrange, button, h, label, setAttribute, setText } from './dom';

const SHOWN = 4;
const LOOK_EVERY_S = 2;

export class OrderBox {
  readonly root: HTMLElement;

  private readonly text = h('input', { type: 'text', maxlength: 2000, 'data-testid': 'order-text' });
  private readonly camera = h('input', { type: 'text', maxlength: 64, size: 10, 'data-testid': 'order-camera' });
  private readonly fault = h('p', { class: 'faults', role: 'alert', hidden: true });
  private readonly list = h('ul', { class: 'rows orders' });
  private device: string | null = null;
  private ticks = 0;

  constructor(private readonly context: Context) {
    bindAttribute(this.text, 'placeholder', (t) => t.orders.text);
    bindAttribute(this.camera, 'placeholder', (t) => t.orders.camera);
    const say = h(
      'form',
      { class: 'order-form' },
      this.text,
      label('button', { type: 'submit', 'data-testid': 'order-send' }, (t) => t.orders.send),
    );
    say.addEventListener('submit', (event) => {
      event.preventDefault();
      const text = this.text.value.trim();
      if (text !== '') void this.give({ kind: 'message', text });
    });
    const camera = (): { camera?: string } => {
      const name = this.camera.value.trim();
      return name === '' ? {} : { camera: name };
    };
    this.root = h(
      'div',
      { class: 'order-box', 'data-testid': 'orders' },
      label('h3', {}, (t) => t.orders.title),
      say,
      h(
        'div',
        { class: 'order-form' },
        this.camera,
        button({ 'data-testid': 'order-live' }, (t) => t.orders.liveStart, () => void this.give({ kind: 'live_start', ...camera() })),
        button({}, (t) => t.orders.liveStop, () => void this.give({ kind: 'live_stop', camera: camera().camera ?? 'main' })),
      ),
      this.fault,
      this.list,
    );
  }

  /** Another device, or none. */
  show(device: string | null): void {
    if (device === this.device) return;
    this.device = device;
    this.ticks = 0;
    this.text.value = '';
    this.fault.hidden = true;
    this.list.replaceChildren();
    void this.look();
  }

  /** Once a second. */
  tick(): void {
    this.ticks += 1;
    if (this.ticks % LOOK_EVERY_S === 0) void this.look();
  }

  private async give(order: api.Asked): Promise<void> {
    const device = this.device;
    if (device === null) return;
    try {
      await api.giveOrder(device, order);
      this.fault.hidden = true;
      if (order.kind === 'message') this.text.value = '';
    } catch (fault) {
      this.fault.hidden = false;
      setText(this.fault, texts().orders.refused(fault instanceof Error ? fault.message : String(fault)));
    }
    await this.look();
  }

  private async look(): Promise<void> {
    const device = this.device;
    if (device === null) return;
    try {
      const orders = await api.ordersOf(device, SHOWN);
      if (device === this.device) this.draw(orders);
    } catch {
      // The next look tells; a lost connection is shown at the top of the screen.
    }
  }

  private draw(orders: Order[]): void {
    const t = texts();
    const existing = new Map([...this.list.children].map((c) => [c.getAttribute('data-order'), c as HTMLElement]));
    arrange(
      this.list,
      orders.map((order) => {
        const row =
          existing.get(order.id) ??
          h('li', { 'data-order': order.id }, h('span', { class: 'order-what' }), h('span', { class: 'order-ladder' }), h('time', {}));
        setAttribute(row, 'data-state', order.state);
        const what = [named(t.orders.kind, order.kind), order.text ?? order.camera ?? null];
        setText(row.querySelector('.order-what') as Element, what.filter((w) => w !== null).join(': '));
        const ladder = rungs(order).map((r) => named(t.orders.state, r.state) + (r.note === null ? '' : ` (${r.note})`));
        setText(row.querySelector('.order-ladder') as Element, ladder.join(' → '));
        setText(row.querySelector('time') as Element, clockTime(order.given_ms, this.context.now()));
        return row;
      }),
    );
  }
}
