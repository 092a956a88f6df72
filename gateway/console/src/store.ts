// What the screen knows: the picture as the feed told it, and what the operator selected. Pure: no sockets, no
// page, no clock of its own. How things look does not belong here.

import type { Device, EventItem, FeedMessage, LonLat, Me, Stream } from './contract';
import { EVERYTHING, samePart, type Part } from './part';
import { isShown } from './people';

const TRAIL_POINTS_MAX = 60;
const EVENTS_MAX = 2000;
const AGENCIES_MAX = 200;
/** Messages over which the clock offset is taken: the least delayed of them is nearest to the truth. */
const CLOCK_SAMPLES = 16;

/** A device as the feed gave it, and its track on this screen. */
export interface Tracked extends Device {
  /** Gateway's wallclock at which the position was true; null without a position. */
  fixMs: number | null;
  trail: LonLat[];
}

/** Grows with every change of its part; views compare it with what they last drew. */
export interface Revisions {
  devices: number;
  streams: number;
  events: number;
  selection: number;
}

/** Of devices, those with a marker: each person once. */
export type Counts = { devices: number; online: number; live: number; streams: number; open: number; parked: number };

export class Store {
  readonly devices = new Map<string, Tracked>();
  readonly streams = new Map<string, Stream>();
  readonly events = new Map<string, EventItem>();
  readonly revisions: Revisions = { devices: 0, streams: 0, events: 0, selection: 0 };
  me: Me | null = null;
  /** Where the feed stands; what `since=` resumes from. */
  cursor: { epoch: string; seq: number } | null = null;
  /** Version of the grid that the gateway uses; null: it does not say. */
  gridVersion: string | null = null;
  selected: string | null = null;
  /** What of the picture the feed is asked for. */
  part: Part = EVERYTHING;
  /** All that were seen since login, so that one can be chosen while another one is. */
  readonly agencies = new Set<string>();

  private newestFirst: EventItem[] | null = null;
  private offsets: number[] = [];
  private readonly listeners = new Set<() => void>();

  /** `localMs`: this screen's wallclock when the message came. */
  apply(message: FeedMessage, localMs: number): void {
    this.observeClock(message.now_ms - localMs);
    if (message.type === 'snapshot') this.clearPicture();
    for (const device of message.devices) this.putDevice(device, message.now_ms);
    for (const stream of message.streams) this.streams.set(stream.stream, stream);
    for (const event of message.events) this.events.set(event.id, event);
    for (const item of message.gone ?? []) this.remove(item);
    if (message.events.length > 0) this.eventsChanged();
    if (message.devices.length > 0) this.revisions.devices++;
    if (message.streams.length > 0) this.revisions.streams++;
    this.cursor = { epoch: message.epoch, seq: message.seq };
    this.gridVersion = message.grid ?? this.gridVersion;
    this.notify();
  }

  /** Older events, fetched page by page. */
  addOlder(events: EventItem[]): void {
    for (const event of events) if (!this.events.has(event.id)) this.events.set(event.id, event);
    this.eventsChanged();
    this.notify();
  }

  /** True if this is another part than before: then nothing is known of it yet. */
  choose(part: Part): boolean {
    if (samePart(part, this.part)) return false;
    this.part = { ...part };
    this.cursor = null;
    this.clearPicture();
    this.notify();
    return true;
  }

  select(device: string | null): void {
    if (this.selected === device) return;
    this.selected = device;
    this.revisions.selection++;
    this.notify();
  }

  /** Calls back after every change; the caller decides when to draw. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The gateway's wallclock, ms since 1970 UTC. */
  gatewayNow(localMs: number): number {
    return localMs + (this.offsets.length > 0 ? Math.max(...this.offsets) : 0);
  }

  eventsNewestFirst(): readonly EventItem[] {
    this.newestFirst ??= [...this.events.values()].sort((a, b) => (a.id < b.id ? 1 : a.id > b.id ? -1 : 0));
    return this.newestFirst;
  }

  /** The device's streams, main camera first, then by name. */
  streamsOf(device: string): Stream[] {
    const rank = (s: Stream) => (s.stream.endsWith('/main') ? 0 : 1);
    return [...this.streams.values()]
      .filter((s) => s.device === device)
      .sort((a, b) => rank(a) - rank(b) || a.stream.localeCompare(b.stream));
  }

  /** Devices with at least one live stream. */
  devicesOnAir(): Set<string> {
    const onAir = new Set<string>();
    for (const s of this.streams.values()) if (s.phase === 'live') onAir.add(s.device);
    return onAir;
  }

  counts(): Counts {
    const counts: Counts = { devices: 0, online: 0, live: 0, streams: 0, open: 0, parked: 0 };
    for (const device of this.devices.values()) {
      if (!isShown(device)) continue;
      counts.devices++;
      if (device.online) counts.online++;
      if (device.state === 'live') counts.live++;
    }
    for (const stream of this.streams.values()) if (stream.phase === 'live') counts.streams++;
    for (const event of this.events.values()) {
      if (isOpen(event)) counts.open++;
      if (isParked(event)) counts.parked++;
    }
    return counts;
  }

  private putDevice(device: Device, nowMs: number): void {
    const before = this.devices.get(device.id);
    if (device.agency != null && this.agencies.size < AGENCIES_MAX) this.agencies.add(device.agency);
    const { position } = device;
    const fixMs = position === null ? null : position.age_ms != null ? nowMs - position.age_ms : position.arrived_ms;
    const trail = device.trail?.slice(-TRAIL_POINTS_MAX) ?? before?.trail ?? [];
    if (position !== null) {
      const last = trail.at(-1);
      if (last === undefined || last[0] !== position.lon || last[1] !== position.lat) {
        trail.push([position.lon, position.lat]);
        if (trail.length > TRAIL_POINTS_MAX) trail.shift();
      }
    }
    this.devices.set(device.id, { ...device, fixMs, trail });
  }

  private remove(item: string): void {
    const colon = item.indexOf(':');
    const id = item.slice(colon + 1);
    switch (item.slice(0, colon)) {
      case 'device':
        if (this.devices.delete(id)) this.revisions.devices++;
        for (const [name, stream] of this.streams) {
          if (stream.device !== id) continue;
          this.streams.delete(name);
          this.revisions.streams++;
        }
        if (this.selected === id) {
          this.selected = null;
          this.revisions.selection++;
        }
        break;
      case 'stream':
        if (this.streams.delete(id)) this.revisions.streams++;
        break;
      case 'event':
        if (this.events.delete(id)) this.eventsChanged();
        break;
    }
  }

  private clearPicture(): void {
    this.devices.clear();
    this.streams.clear();
    this.events.clear();
    this.revisions.devices++;
    this.revisions.streams++;
    this.eventsChanged();
  }

  private eventsChanged(): void {
    this.newestFirst = null;
    this.revisions.events++;
    if (this.events.size <= EVENTS_MAX) return;
    for (const old of this.eventsNewestFirst().slice(EVENTS_MAX)) this.events.delete(old.id);
    this.newestFirst = null;
  }

  private observeClock(offsetMs: number): void {
    this.offsets.push(offsetMs);
    if (this.offsets.length > CLOCK_SAMPLES) this.offsets.shift();
  }

  private notify(): void {
    for (const listener of this.listeners) listener();
  }
}

/** An event is open until every platform has it. */
export function isOpen(event: EventItem): boolean {
  return event.deliveries.some((d) => d.state !== 'delivered');
}

export function isParked(event: EventItem): boolean {
  return event.deliveries.some((d) => d.state === 'parked');
}
