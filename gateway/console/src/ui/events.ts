// The list of events: newest first, and how far each is on its way to every platform.

import { eventsBefore, retryDelivery } from '../api';
import type { Delivery, EventItem } from '../contract';
import { clockTime, coordinates, named } from '../format';
import { bindAttribute, bindText, texts, type Dictionary } from '../i18n';
import { isOpen, isParked } from '../store';
import type { Context } from './context';
import { arrange, button, h, label, setAttribute, setText } from './dom';
import { sign } from './icons';

const ROWS_STEP = 100;
const FILTERS = ['all', 'open', 'sos', 'parked'] as const;
type Filter = (typeof FILTERS)[number];

export class EventList {
  readonly root: HTMLElement;

  private filter: Filter = 'all';
  private rowsMax = ROWS_STEP;
  private noOlder = false;
  private readonly count = h('span', { class: 'count' });
  private readonly search = h('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', 'data-testid': 'event-search' });
  private readonly tabs = h('div', { class: 'chips', role: 'group' });
  private readonly list = h('ol', { class: 'rows event-rows' });
  private readonly foot = h('p', { class: 'rows-foot' });
  private readonly older: HTMLButtonElement;
  private readonly rows = new Map<string, { root: HTMLElement; drawn: string }>();
  /** What the gateway answered to a retry that it did not accept, by event and platform. */
  private readonly retryWords = new Map<string, string>();
  private drawn = '';

  constructor(private readonly context: Context) {
    const changed = () => this.render();
    bindAttribute(this.search, 'placeholder', (t) => t.events.search);
    bindAttribute(this.search, 'aria-label', (t) => t.events.search);
    bindAttribute(this.list, 'aria-label', (t) => t.events.title);
    this.search.addEventListener('input', changed);
    for (const filter of FILTERS) {
      const tab = button({ class: 'chip', 'data-testid': `event-filter-${filter}`, 'data-filter': filter }, (t) => t.events[filter], () => {
        this.filter = filter;
        this.render();
      });
      this.tabs.append(tab);
    }
    this.older = button({ class: 'quiet wide', 'data-testid': 'events-older' }, (t) => t.events.older, () => void this.loadOlder());
    this.root = h(
      'section',
      { class: 'panel events' },
      h('div', { class: 'panel-head' }, label('h2', {}, (t) => t.events.title), this.count, this.tabs),
      h('div', { class: 'filters' }, h('label', { class: 'search' }, sign('search'), this.search)),
      h('div', { class: 'scroll' }, this.list, this.foot, this.older),
    );
  }

  render(): void {
    const { store } = this.context;
    const t = texts();
    const day = new Date(this.context.now()).toDateString();
    const key = JSON.stringify([store.revisions.events, this.filter, this.search.value, this.rowsMax, t.language, day, this.retryWords.size, this.noOlder]);
    if (key === this.drawn) return;
    this.drawn = key;

    for (const tab of this.tabs.children) {
      setAttribute(tab, 'aria-pressed', String(tab.getAttribute('data-filter') === this.filter));
    }
    const all = store.eventsNewestFirst();
    const matching = all.filter((e) => this.matches(e, t));
    arrange(this.list, matching.slice(0, this.rowsMax).map((e) => this.draw(e, t)));
    for (const id of this.rows.keys()) if (!store.events.has(id)) this.rows.delete(id);
    setText(this.count, t.list.count(matching.length, all.length));
    setText(this.foot, all.length === 0 ? t.events.empty : matching.length === 0 ? t.events.none : this.noOlder ? t.events.olderEnd : '');
    this.older.hidden = all.length === 0 || (this.noOlder && matching.length <= this.rowsMax);
  }

  /** Brings an event into view, without a filter that hides it. */
  reveal(id: string): void {
    this.filter = 'all';
    this.search.value = '';
    const index = this.context.store.eventsNewestFirst().findIndex((e) => e.id === id);
    this.rowsMax = Math.max(this.rowsMax, index + 1);
    this.render();
    const row = this.rows.get(id)?.root;
    row?.scrollIntoView({ block: 'nearest' });
    row?.querySelector('button')?.focus();
  }

  private matches(event: EventItem, t: Dictionary): boolean {
    const passes =
      this.filter === 'all' ||
      (this.filter === 'open' && isOpen(event)) ||
      (this.filter === 'sos' && event.kind === 'sos') ||
      (this.filter === 'parked' && isParked(event));
    if (!passes) return false;
    const words = this.search.value.trim().toLowerCase();
    if (words === '') return true;
    const text = [event.device, event.unit, event.kind, named(t.events.kind, event.kind), event.note, this.place(event, t)]
      .join(' ')
      .toLowerCase();
    return words.split(/\s+/).every((w) => text.includes(w));
  }

  private draw(event: EventItem, t: Dictionary): HTMLElement {
    const key = JSON.stringify([event, t.language, new Date(this.context.now()).toDateString(), this.retryWordsOf(event)]);
    const existing = this.rows.get(event.id);
    if (existing?.drawn === key) return existing.root;
    // The same element stays: a focus inside it, or a test that holds it, must survive a delivery's progress.
    const root = existing?.root ?? h('li', { 'data-testid': `event-row-${event.id}` });
    const focused = root.contains(document.activeElement);
    for (const { name } of [...root.attributes]) if (name.startsWith('data-delivery-')) root.removeAttribute(name);
    for (const d of event.deliveries) root.setAttribute(`data-delivery-${attributeName(d.platform)}`, d.state);
    setAttribute(root, 'data-severity', event.severity);
    setAttribute(root, 'data-kind', event.kind);
    setAttribute(root, 'data-open', String(isOpen(event)));
    root.replaceChildren(this.main(event, t), this.deliveries(event, t));
    if (focused) root.querySelector('button')?.focus();
    this.rows.set(event.id, { root, drawn: key });
    return root;
  }

  private main(event: EventItem, t: Dictionary): HTMLElement {
    const when = h('time', { datetime: new Date(event.raised_ms).toISOString() }, clockTime(event.raised_ms, this.context.now()));
    when.title = new Date(event.raised_ms).toISOString();
    const severity = named(t.events.severity, event.severity);
    const press = h(
      'button',
      { type: 'button', class: 'row-press' },
      h(
        'span',
        { class: 'event-line' },
        h('span', { class: 'event-kind' }, named(t.events.kind, event.kind)),
        h('span', { class: 'event-severity' }, severity),
        h('span', { class: 'event-device' }, event.device),
        h('span', { class: 'event-unit' }, event.unit ?? ''),
        when,
      ),
      h('span', { class: 'event-line event-sub' }, h('span', { class: 'event-place' }, this.place(event, t)), h('span', { class: 'event-note' }, event.note ?? '')),
    );
    press.addEventListener('click', () => this.show(event));
    return press;
  }

  private deliveries(event: EventItem, t: Dictionary): HTMLElement {
    const chips = event.deliveries.map((d) => this.delivery(event, d, t));
    if (chips.length === 0) chips.push(h('span', { class: 'delivery' }, t.events.noPlatform));
    return h('div', { class: 'deliveries' }, ...chips);
  }

  private delivery(event: EventItem, d: Delivery, t: Dictionary): HTMLElement {
    const words = { pending: t.events.pending, delivered: t.events.delivered, parked: t.events.parkedState };
    const tries = d.attempts > 1 ? ` · ${t.events.attempts(d.attempts)}` : '';
    const chip = h(
      'span',
      { class: 'delivery', 'data-state': d.state },
      h('span', { class: 'dot' }),
      h('span', { class: 'delivery-platform' }, d.platform),
      h('span', { class: 'delivery-state' }, named(words, d.state) + tries),
    );
    if (d.error !== null && d.state !== 'delivered') {
      chip.append(h('span', { class: 'delivery-error', title: d.error }, d.error));
    }
    if (d.state === 'parked' && this.context.store.me?.role !== 'auditor') chip.append(this.retryButton(event.id, d.platform));
    const refused = this.retryWords.get(`${event.id} ${d.platform}`);
    if (refused !== undefined) chip.append(h('span', { class: 'delivery-error', role: 'alert' }, t.events.retryFailed(refused)));
    return chip;
  }

  private retryButton(event: string, platform: string): HTMLButtonElement {
    const node = bindText(h('button', { type: 'button', class: 'quiet small', 'data-testid': `retry-${event}-${platform}` }), (t) => t.events.retry);
    bindAttribute(node, 'title', (t) => t.events.retryHint(platform));
    node.addEventListener('click', () => {
      node.disabled = true;
      const key = `${event} ${platform}`;
      this.retryWords.delete(key);
      retryDelivery(event, platform)
        .catch((error: unknown) => {
          this.retryWords.set(key, error instanceof Error ? error.message : String(error));
          this.render();
        })
        .finally(() => (node.disabled = false));
    });
    return node;
  }

  private retryWordsOf(event: EventItem): (string | undefined)[] {
    return event.deliveries.map((d) => this.retryWords.get(`${event.id} ${d.platform}`));
  }

  private place(event: EventItem, t: Dictionary): string {
    if (event.cell !== null) return this.context.placeName(event.cell);
    return event.position === null ? t.events.noPlace : coordinates(event.position);
  }

  private show(event: EventItem): void {
    if (this.context.store.devices.has(event.device)) this.context.store.select(event.device);
    if (event.position !== null) this.context.flyTo(event.position);
  }

  private async loadOlder(): Promise<void> {
    const { store } = this.context;
    const all = store.eventsNewestFirst();
    const oldest = all.at(-1);
    if (oldest === undefined) return;
    this.rowsMax += ROWS_STEP;
    if (this.rowsMax <= all.length || this.noOlder) return this.render();
    this.older.disabled = true;
    try {
      const page = await eventsBefore(oldest.id, ROWS_STEP);
      this.noOlder = page.length < ROWS_STEP;
      store.addOlder(page);
      this.render();
    } catch (error) {
      setText(this.foot, texts().events.olderFailed(error instanceof Error ? error.message : String(error)));
    } finally {
      this.older.disabled = false;
    }
  }
}

/** A platform's name as part of an attribute's name. */
function attributeName(platform: string): string {
  return platform.toLowerCase().replace(/[^a-z0-9._-]/g, '_');
}
