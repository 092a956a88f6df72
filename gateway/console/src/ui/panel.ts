// The selected device: its video, its track, its events.

import type { Device } from '../contract';
import { clockTime, coordinates, duration, heading, metres, named, speed } from '../format';
import { clockText, lasting } from '../facts';
import { radius68 } from '../motion';
import { bindAttribute, texts, type Dictionary } from '../i18n';
import type { Tracked } from '../store';
import type { Context } from './context';
import { arrange, h, iconButton, label, setAttribute, setText } from './dom';
import { kindIcon, sign } from './icons';
import { Details } from './details';
import { OrderBox } from './orders';
import { PastButton } from './past';
import { VideoTile } from './video';

const EVENTS_SHOWN = 6;

const FACTS = [
  'age', 'accuracy', 'battery', 'speed', 'heading', 'altitude', 'position', 'cell', 'zones', 'agency', 'mode', 'clock', 'footprint', 'delays',
] as const;
type Fact = (typeof FACTS)[number];
/** Those that most devices do not have: shown only with a value. */
const RARE: readonly Fact[] = ['clock', 'footprint', 'delays'];

export class DevicePanel {
  readonly root: HTMLElement;

  private readonly icon = h('span', { class: 'row-icon big' });
  private readonly name = h('h2', { class: 'device-name' });
  private readonly sub = h('span', { class: 'device-sub' });
  private readonly state = h('span', { class: 'tag state' });
  private readonly sosTag: HTMLElement;
  private readonly lock: HTMLElement;
  private readonly cameras = h('div', { class: 'cameras', role: 'tablist' });
  private readonly facts = new Map<Fact, { root: HTMLElement; value: HTMLElement }>();
  private readonly events = h('ul', { class: 'rows device-events' });
  private readonly noEvents: HTMLElement;
  private readonly follow = h('input', { type: 'checkbox', 'data-testid': 'follow' });
  private readonly scroll: HTMLElement;

  private device: string | null = null;
  private camera: string | null = null;
  private video: VideoTile | null = null;
  private readonly orders: OrderBox;
  private readonly details: Details;
  private readonly past: PastButton;
  private readonly tile = h('div', { class: 'video-place' });

  constructor(
    private readonly context: Context,
    private readonly onFollow: (on: boolean) => void,
    private readonly onEvent: (id: string) => void,
  ) {
    this.orders = new OrderBox(context);
    this.details = new Details(context);
    this.past = new PastButton(context);
    this.sosTag = label('span', { class: 'tag sos' }, (t) => t.panel.sos);
    this.lock = label('span', { class: 'tag restricted', 'data-testid': 'restricted' }, (t) => t.panel.restricted);
    this.noEvents = label('p', { class: 'rows-foot' }, (t) => t.panel.noEvents);
    bindAttribute(this.cameras, 'aria-label', (t) => t.video.camera);
    this.follow.addEventListener('change', () => this.onFollow(this.follow.checked));
    const list = h('dl', { class: 'facts' });
    for (const fact of FACTS) {
      const value = h('dd', { 'data-testid': `fact-${fact}` });
      const root = h('div', { class: `fact fact-${fact}` }, label('dt', {}, (t) => t.panel[fact]), value);
      this.facts.set(fact, { root, value });
      list.append(root);
    }
    this.scroll = h(
      'div',
      { class: 'scroll' },
      this.tile,
      list,
      this.details.root,
      this.past.root,
      this.orders.root,
      label('h3', {}, (t) => t.panel.events),
      this.events,
      this.noEvents,
    );
    this.root = h(
      'section',
      { class: 'panel device-panel', 'data-testid': 'device-panel', hidden: true },
      h(
        'div',
        { class: 'panel-head' },
        this.icon,
        h('div', { class: 'device-title' }, h('div', { class: 'device-line' }, this.name, this.state, this.lock, this.sosTag), this.sub),
        bindAttribute(h('label', { class: 'check' }, this.follow, label('span', {}, (t) => t.panel.follow)), 'title', (t) => t.panel.followHint),
        iconButton({ 'data-testid': 'locate' }, sign('locate'), (t) => t.panel.locate, () => {
          if (this.device !== null) this.context.showDevice(this.device);
        }),
        iconButton({ 'data-testid': 'panel-close' }, sign('close'), (t) => t.panel.close, () => this.context.store.select(null)),
      ),
      this.cameras,
      this.scroll,
    );
  }

  render(following: boolean): void {
    const { store } = this.context;
    const device = store.selected === null ? undefined : store.devices.get(store.selected);
    this.root.hidden = device === undefined;
    if (device === undefined) return this.close();
    if (this.device !== device.id) this.open(device);
    this.follow.checked = following;
    this.drawHead(device);
    this.drawCameras(device.id);
    this.drawFacts(device);
    this.details.render(device);
    this.drawEvents(device.id);
  }

  /** Once a second. */
  tick(): void {
    this.video?.tick();
    if (this.device !== null) this.orders.tick();
    const tracked = this.device === null ? undefined : this.context.store.devices.get(this.device);
    if (tracked !== undefined) this.drawAge(tracked.fixMs);
  }

  close(): void {
    this.video?.close();
    this.video = null;
    this.device = null;
    this.camera = null;
    this.orders.show(null);
    this.past.show(null);
    this.tile.replaceChildren();
  }

  private open(device: Device): void {
    this.close();
    this.device = device.id;
    this.video = new VideoTile();
    this.tile.replaceChildren(this.video.root);
    this.orders.show(device.id);
    this.past.show(device.id);
    this.icon.replaceChildren(kindIcon(device.kind));
    this.scroll.scrollTop = 0;
  }

  private drawHead(device: Device): void {
    const t = texts();
    setText(this.name, device.id);
    setAttribute(this.root, 'data-state', device.state);
    setAttribute(this.root, 'data-device', device.id);
    setText(this.state, named(t.state, device.state));
    this.sosTag.hidden = !device.sos;
    this.lock.hidden = device.restricted !== true;
    this.root.classList.toggle('sos', device.sos);
    const sub = [named(t.kind, device.kind), device.model, device.unit, device.online ? t.panel.online : t.panel.offline];
    setText(this.sub, sub.filter((s) => s !== null).join(' · '));
  }

  private drawCameras(device: string): void {
    const streams = this.context.store.streamsOf(device);
    const chosen = streams.find((s) => s.stream === this.camera) ?? streams.find((s) => s.phase === 'live') ?? streams[0];
    // The first choice stays until the operator makes another: a stream that stalls is not left behind silently.
    this.camera = chosen?.stream ?? null;
    this.video?.show(chosen ?? null);
    this.cameras.hidden = streams.length < 2;
    if (streams.length < 2) return this.cameras.replaceChildren();
    const existing = new Map([...this.cameras.children].map((c) => [c.getAttribute('data-stream'), c as HTMLElement]));
    arrange(
      this.cameras,
      streams.map((stream) => {
        const tab = existing.get(stream.stream) ?? this.cameraTab(stream.stream);
        setAttribute(tab, 'aria-selected', String(stream.stream === this.camera));
        setAttribute(tab, 'data-phase', stream.phase);
        tab.title = named(texts().phase, stream.phase);
        return tab;
      }),
    );
  }

  private cameraTab(stream: string): HTMLElement {
    const name = stream.slice(stream.indexOf('/') + 1);
    const tab = h('button', { type: 'button', role: 'tab', 'data-stream': stream, 'data-testid': `camera-${name}` }, h('span', { class: 'dot' }), name);
    tab.addEventListener('click', () => {
      this.camera = stream;
      if (this.device !== null) this.drawCameras(this.device);
    });
    return tab;
  }

  private drawFacts(device: Tracked): void {
    const t = texts();
    const p = device.position;
    const sigma = p?.sigma_m ?? null;
    const said = p?.accuracy_m == null ? null : metres(p.accuracy_m, t);
    const sure = sigma === null ? said : metres(radius68(sigma), t);
    const values: Record<Exclude<Fact, 'age'>, string | null> = {
      accuracy: sure === null ? null : `± ${sure}`,
      speed: speed(p?.motion?.speed_mps ?? p?.speed_mps, t),
      heading: heading(p?.heading_deg ?? p?.motion?.course_deg, t),
      altitude: metres(p?.alt_m, t),
      battery: device.battery_pct === null ? null : `${Math.round(device.battery_pct)} %`,
      cell: this.cellPath(device),
      zones: device.zones.length === 0 ? null : device.zones.map((z) => this.context.placeName(z)).join(', '),
      position: p === null ? null : coordinates(p),
      mode: device.mode,
      agency: device.agency ?? null,
      clock: device.clock == null ? null : clockText(device.clock, t),
      footprint: footprintText(device, t),
      delays: delaysText(device, t),
    };
    for (const [fact, value] of Object.entries(values)) this.setFact(fact as Fact, value);
    const from = p?.source_datum != null && p.source_datum !== 'wgs84' ? t.panel.datumFrom(p.source_datum.toUpperCase()) : '';
    this.hint('position', ['WGS-84', from].filter((s) => s !== '').join(', '));
    this.hint('accuracy', t.panel.accuracyHint(said));
    this.facts.get('battery')?.root.classList.toggle('low', device.battery_pct !== null && device.battery_pct < 20);
    this.drawAge(device.fixMs);
  }

  /** From the street to the finest cell. */
  private cellPath(device: Device): string | null {
    const path = device.cells !== undefined && device.cells.length > 0 ? device.cells : device.cell === null ? [] : [device.cell];
    return path.length === 0 ? null : path.map((c) => this.context.placeName(c)).join(' › ');
  }

  private hint(fact: Fact, text: string): void {
    const entry = this.facts.get(fact);
    if (entry !== undefined) entry.root.title = text;
  }

  private drawAge(fixMs: number | null): void {
    this.setFact('age', fixMs === null ? null : duration(this.context.now() - fixMs, texts()));
  }

  private setFact(fact: Fact, value: string | null): void {
    const entry = this.facts.get(fact);
    if (entry === undefined) return;
    setText(entry.value, value ?? '—');
    if (RARE.includes(fact)) {
      entry.root.hidden = value === null;
      entry.root.title = value ?? '';
    }
    entry.root.classList.toggle('unknown', value === null);
  }

  private drawEvents(device: string): void {
    const { store } = this.context;
    const t: Dictionary = texts();
    const mine = store.eventsNewestFirst().filter((e) => e.device === device).slice(0, EVENTS_SHOWN);
    const existing = new Map([...this.events.children].map((c) => [c.getAttribute('data-event'), c as HTMLElement]));
    arrange(
      this.events,
      mine.map((event) => {
        const row = existing.get(event.id) ?? this.eventRow(event.id);
        setAttribute(row, 'data-severity', event.severity);
        setText(row.querySelector('.event-kind') as Element, named(t.events.kind, event.kind));
        setText(row.querySelector('.event-note') as Element, event.note ?? '');
        setText(row.querySelector('time') as Element, clockTime(event.raised_ms, this.context.now()));
        return row;
      }),
    );
    this.noEvents.hidden = mine.length > 0;
  }

  private eventRow(id: string): HTMLElement {
    const press = h('button', { type: 'button', class: 'row-press' }, h('span', { class: 'event-kind' }), h('span', { class: 'event-note' }), h('time', {}));
    press.addEventListener('click', () => this.onEvent(id));
    return h('li', { 'data-event': id }, press);
  }
}

/** What its camera sees of the ground, in words: how sure, and whether it ends there. */
function footprintText({ footprint }: Device, t: Dictionary): string | null {
  if (footprint == null) return null;
  const sure = footprint.sigma_m === null ? t.panel.footprintUnsure : t.panel.footprintSure(metres(footprint.sigma_m, t) ?? '');
  const parts = [sure, footprint.is_cut ? t.panel.footprintCut : null, footprint.polygon.length === 0 ? t.panel.footprintCentre : null];
  return parts.filter((p) => p !== null).join(' · ');
}

function delaysText({ video_delays: delays = [] }: Device, t: Dictionary): string | null {
  return delays.length === 0 ? null : delays.map((d) => `${d.camera}: ${lasting(d.delay_ms, t)}`).join(', ');
}
