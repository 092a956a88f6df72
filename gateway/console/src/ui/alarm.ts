// The SOS banner: stays until this screen's operator has acknowledged every call for help.

import type { EventItem } from '../contract';
import { duration } from '../format';
import { bindAttribute, texts } from '../i18n';
import type { Context } from './context';
import { button, h, label, setText } from './dom';
import { sign } from './icons';

const REMEMBERED = 'kerbside.acknowledged';
const REMEMBERED_MAX = 500;
/** An older call was handled by an earlier shift, unless its device still calls. */
const RECENT_MS = 30 * 60_000;

export class Alarm {
  readonly root: HTMLElement;

  private readonly what = h('span', { class: 'alarm-what' });
  private readonly where = h('span', { class: 'alarm-where' });
  private readonly age = h('span', { class: 'alarm-age', 'aria-live': 'off' });
  private readonly more = h('span', { class: 'alarm-more' });
  private readonly acknowledged = new Set<string>(remembered());
  private current: EventItem | null = null;

  constructor(
    private readonly context: Context,
    private readonly onShow: (event: EventItem) => void,
  ) {
    const acknowledge = button({ class: 'alarm-button', 'data-testid': 'sos-acknowledge' }, (t) => t.sos.acknowledge, () => {
      if (this.current === null) return;
      this.acknowledged.add(this.current.id);
      remember(this.acknowledged);
      this.render();
    });
    bindAttribute(acknowledge, 'title', (t) => t.sos.hint);
    this.root = h(
      'div',
      { class: 'alarm', role: 'alert', 'data-testid': 'sos-banner', hidden: true },
      sign('alarm'),
      label('strong', {}, (t) => t.sos.title),
      this.what,
      this.where,
      this.age,
      this.more,
      button({ class: 'alarm-button primary', 'data-testid': 'sos-show' }, (t) => t.sos.show, () => {
        if (this.current !== null) this.onShow(this.current);
      }),
      acknowledge,
    );
  }

  render(): void {
    const waiting = this.waiting();
    const t = texts();
    this.current = waiting[0] ?? null;
    this.root.hidden = this.current === null;
    document.documentElement.classList.toggle('alarmed', this.current !== null);
    const title = this.current === null ? t.product : `${t.sos.title} · ${this.current.device}`;
    document.title = `${title} · ${t.productSub}`;
    if (this.current === null) return;
    const { device, unit, cell, note } = this.current;
    setText(this.what, [device, unit].filter((s) => s !== null).join(' · '));
    setText(this.where, [cell === null ? null : this.context.placeName(cell), note].filter((s) => s !== null && s !== '').join(' · '));
    setText(this.more, waiting.length > 1 ? t.sos.more(waiting.length - 1) : '');
    this.tick();
  }

  tick(): void {
    if (this.current === null) return;
    const t = texts();
    setText(this.age, t.sos.since(duration(this.context.now() - this.current.raised_ms, t)));
  }

  /** Calls not acknowledged here, newest first. */
  private waiting(): EventItem[] {
    const { store } = this.context;
    const since = this.context.now() - RECENT_MS;
    return store
      .eventsNewestFirst()
      .filter(
        (e) =>
          e.kind === 'sos' &&
          !this.acknowledged.has(e.id) &&
          (e.raised_ms >= since || store.devices.get(e.device)?.sos === true),
      );
  }
}

function remembered(): string[] {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(REMEMBERED) ?? '[]');
    return Array.isArray(value) ? value.filter((v): v is string => typeof v === 'string') : [];
  } catch {
    return [];
  }
}

function remember(ids: ReadonlySet<string>): void {
  localStorage.setItem(REMEMBERED, JSON.stringify([...ids].slice(-REMEMBERED_MAX)));
}
