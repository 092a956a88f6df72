// The list of devices: search, filters, and the state of each in one line.

import type { Device } from '../contract';
import { duration, named } from '../format';
import { bindAttribute, onLanguage, texts } from '../i18n';
import { worstAlarm } from '../facts';
import { grouped, isShown } from '../people';
import type { Tracked } from '../store';
import { Choice } from './choice';
import type { Context } from './context';
import { arrange, button, h, label, setAttribute, setText } from './dom';
import { kindIcon, sign } from './icons';

/** Rows on the page; beyond this a search serves better than a scroll. */
const ROWS_MAX = 400;

interface Row {
  root: HTMLLIElement;
  press: HTMLButtonElement;
  icon: HTMLElement;
  kind: string;
  sub: HTMLElement;
  battery: HTMLElement;
  level: HTMLElement;
  alarm: HTMLElement;
  air: HTMLElement;
  age: HTMLElement;
}

export class DeviceList {
  readonly root: HTMLElement;

  private readonly search = h('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', 'data-testid': 'device-search' });
  private readonly kinds: Choice;
  private readonly agencies: Choice;
  private readonly cells: Choice;
  private readonly states: Choice;
  private readonly units: Choice;
  private readonly count = h('span', { class: 'count' });
  private readonly list = h('ul', { class: 'rows device-rows' });
  private readonly foot = h('p', { class: 'rows-foot' });
  private readonly clear: HTMLButtonElement;
  private readonly rows = new Map<string, Row>();
  private drawn = '';
  private selectionSeen: string | null = null;

  constructor(private readonly context: Context) {
    const changed = () => this.render();
    // The gateway itself is asked for less: a screen of one street need not take in the city.
    const chosen = () => {
      this.context.choose({ agency: this.agencies.node.value, kind: this.kinds.node.value, cell: this.cells.node.value });
      this.render();
    };
    this.agencies = new Choice('device-agency', (t) => t.list.agency, (v) => v, chosen);
    this.kinds = new Choice('device-kind', (t) => t.list.kind, (v, t) => named(t.kind, v), chosen);
    this.cells = new Choice('device-cell', (t) => t.list.cell, (v) => this.cellName(v), chosen);
    this.kinds.offer(Object.keys(texts().kind));
    this.states = new Choice('device-state', (t) => t.list.state, (v, t) => named(t.state, v), changed);
    this.units = new Choice('device-unit', (t) => t.list.unit, (v) => v, changed);
    this.states.offer(['live', 'stale', 'coasting', 'lost', 'silent']);
    bindAttribute(this.search, 'placeholder', (t) => t.list.search);
    bindAttribute(this.search, 'aria-label', (t) => t.list.search);
    bindAttribute(this.list, 'aria-label', (t) => t.list.title);
    this.search.addEventListener('input', changed);
    this.clear = button({ class: 'quiet' }, (t) => t.list.clear, () => {
      this.search.value = '';
      for (const choice of [this.agencies, this.kinds, this.cells, this.states, this.units]) choice.node.value = '';
      chosen();
    });
    this.root = h(
      'section',
      { class: 'panel devices' },
      h('div', { class: 'panel-head' }, label('h2', {}, (t) => t.list.title), this.count),
      h('div', { class: 'filters' }, h('label', { class: 'search' }, sign('search'), this.search), ...this.selects()),
      h('div', { class: 'scroll' }, this.list, this.foot, this.clear),
    );
    onLanguage(() => (this.drawn = ''));
  }

  private selects(): HTMLSelectElement[] {
    return [this.agencies, this.kinds, this.cells, this.states, this.units].map((choice) => choice.node);
  }

  /** Indented by its level, with wide blanks that a drop-down does not swallow. */
  private cellName(id: string): string {
    const depth = this.context.cells().find((c) => c.id === id)?.depth ?? 0;
    return '\u2003'.repeat(depth) + this.context.placeName(id);
  }

  /** Draws when the picture or a filter changed; `renderAges` does the rest. */
  render(): void {
    const { store } = this.context;
    const { devices, streams, selection } = store.revisions;
    const filter = [this.search.value, ...this.selects().map((s) => s.value)];
    const cells = this.context.cells();
    const key = JSON.stringify([devices, streams, selection, filter, cells.length, texts().language]);
    if (key === this.drawn) return;
    this.drawn = key;

    const all = [...store.devices.values()].sort(order);
    this.agencies.offer([...store.agencies].sort(byName));
    this.cells.offer(cells.map((c) => c.id));
    this.units.offer(distinct(all.flatMap((d) => d.unit ?? [])));
    const matching = grouped(all.filter((device) => this.matches(device)));
    const shown = matching.slice(0, ROWS_MAX);
    const onAir = store.devicesOnAir();
    arrange(this.list, shown.map((d) => this.draw(d, onAir.has(d.id))));
    for (const id of this.rows.keys()) if (!store.devices.has(id)) this.rows.delete(id);

    const t = texts();
    setText(this.count, t.list.count(matching.filter(isShown).length, all.filter(isShown).length));
    const isPart = store.part.agency + store.part.kind + store.part.cell !== '';
    const foot =
      all.length === 0 && !isPart ? t.list.empty : matching.length === 0 ? t.list.none : matching.length > ROWS_MAX ? t.list.more(matching.length - ROWS_MAX) : '';
    setText(this.foot, foot);
    this.clear.hidden = matching.length > 0 || (all.length === 0 && !isPart);
    this.followSelection();
    this.renderAges();
  }

  renderAges(): void {
    const t = texts();
    const now = this.context.now();
    for (const [id, row] of this.rows) {
      const tracked = this.context.store.devices.get(id);
      if (tracked === undefined || !row.root.isConnected) continue;
      setText(row.age, tracked.fixMs === null ? '—' : duration(now - tracked.fixMs, t));
    }
  }

  /** A device selected on the map or by an event comes into view here too. */
  private followSelection(): void {
    const { selected } = this.context.store;
    if (selected === this.selectionSeen) return;
    this.selectionSeen = selected;
    if (selected !== null) this.rows.get(selected)?.root.scrollIntoView({ block: 'nearest' });
  }

  private matches(device: Device): boolean {
    const words = this.search.value.trim().toLowerCase();
    const text = `${device.id} ${device.unit ?? ''} ${device.agency ?? ''} ${device.person ?? ''} ${device.model ?? ''} ${named(texts().kind, device.kind)}`.toLowerCase();
    return (
      words.split(/\s+/).every((w) => text.includes(w)) &&
      this.states.accepts(device.state) &&
      this.units.accepts(device.unit ?? '')
    );
  }

  private draw(device: Tracked, onAir: boolean): HTMLElement {
    const t = texts();
    const row = this.rows.get(device.id) ?? this.build(device);
    if (row.kind !== device.kind) {
      row.kind = device.kind;
      row.icon.replaceChildren(kindIcon(device.kind));
    }
    setAttribute(row.root, 'data-state', device.state);
    row.root.classList.toggle('sos', device.sos);
    row.root.classList.toggle('offline', !device.online);
    const isBelow = !isShown(device);
    row.root.classList.toggle('companion', isBelow);
    const selected = this.context.store.selected === device.id;
    setAttribute(row.press, 'aria-pressed', String(selected));
    const owner = isBelow && device.person != null ? t.list.samePerson(device.person) : device.unit;
    const sub = [named(t.kind, device.kind), owner, device.restricted === true ? t.list.restricted : null, device.online ? null : t.list.offline];
    setText(row.sub, sub.filter((s) => s !== null).join(' · '));
    row.air.hidden = !onAir;
    const alarm = worstAlarm(device.alarms);
    row.alarm.hidden = alarm === null;
    setAttribute(row.alarm, 'data-level', alarm);
    if (alarm !== null) setAttribute(row.alarm, 'aria-label', t.list.alarm[alarm]);
    const battery = device.battery_pct;
    row.battery.hidden = battery === null;
    if (battery !== null) {
      row.battery.title = `${t.panel.battery} ${Math.round(battery)} %`;
      row.battery.classList.toggle('low', battery < 20);
      row.level.style.width = `${Math.min(100, Math.max(0, battery))}%`;
    }
    row.age.title = named(t.state, device.state);
    return row.root;
  }

  private build(device: Device): Row {
    const icon = h('span', { class: 'row-icon' }, kindIcon(device.kind));
    const sub = h('span', { class: 'row-sub' });
    const level = h('span', { class: 'battery-level' });
    const battery = h('span', { class: 'battery' }, level);
    const air = bindAttribute(h('span', { class: 'on-air', role: 'img' }, kindIcon('camera')), 'aria-label', (t) => t.list.onAir);
    const alarm = h('span', { class: 'row-alarm', role: 'img' }, sign('alarm'));
    const age = h('span', { class: 'row-age' });
    const press = h(
      'button',
      { type: 'button', class: 'row-press', 'data-testid': `device-row-${device.id}` },
      icon,
      h('span', { class: 'row-text' }, h('span', { class: 'row-name' }, device.id), sub),
      h('span', { class: 'row-end' }, h('span', { class: 'row-end-line' }, alarm, air, age), battery),
    );
    press.addEventListener('click', () => this.context.showDevice(device.id));
    const row = { root: h('li', {}, press), press, icon, kind: device.kind, sub, battery, level, alarm, air, age };
    this.rows.set(device.id, row);
    return row;
  }
}

const byName = new Intl.Collator('en', { numeric: true }).compare;

/** Alarms first; then by name, so that rows do not jump while states change. */
function order(a: Tracked, b: Tracked): number {
  return Number(b.sos) - Number(a.sos) || byName(a.id, b.id);
}

function distinct(values: readonly string[]): string[] {
  return [...new Set(values)].sort(byName);
}
