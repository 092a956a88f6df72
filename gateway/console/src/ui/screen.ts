// The whole screen after login: places the views, feeds them, draws at most once per animation frame.

import * as api from '../api';
import type { GridProperties, Me } from '../contract';
import { bindAttribute, bindText, onLanguage, type Dictionary } from '../i18n';
import { browserLine, Feed, type FeedState } from '../live/feed';
import { cellTree, type CellEntry } from '../map/cells';
import type { MapView } from '../map/view';
import { readPalette } from '../palette';
import { Store } from '../store';
import { Alarm } from './alarm';
import type { Context } from './context';
import { DeviceList } from './devices';
import { h, iconButton, label } from './dom';
import { EventList } from './events';
import { sign } from './icons';
import { DevicePanel } from './panel';
import { TopBar } from './topbar';

export class Screen {
  readonly root: HTMLElement;
  readonly store = new Store();
  map: MapView | null = null;

  private readonly feed: Feed;
  private readonly bar: TopBar;
  private readonly list: DeviceList;
  private readonly panel: DevicePanel;
  private readonly events: EventList;
  private readonly alarm: Alarm;
  private readonly mapPlace = h('div', { class: 'map', 'data-testid': 'map' });
  private readonly mapNote = h('p', { class: 'map-note', role: 'status', hidden: true });
  private readonly places = new Map<string, string>();
  private cells: readonly CellEntry[] = [];
  private readonly grid: Promise<api.Grid | null>;
  private gridVersion: string | null = null;
  private frame: number | null = null;
  private readonly clock: number;
  private closed = false;

  constructor(
    me: Me,
    private readonly onSessionEnd: () => void,
    onLogout: () => void,
  ) {
    this.store.me = me;
    const context: Context = {
      store: this.store,
      placeName: (id) => this.places.get(id) ?? id,
      now: () => this.store.gatewayNow(Date.now()),
      showDevice: (id) => this.showDevice(id),
      flyTo: (place) => this.map?.flyTo(place),
      cells: () => this.cells,
      choose: (part) => {
        if (this.store.choose(part)) this.feed.again();
      },
      showPast: (track) => this.map?.showPast(track),
    };
    this.bar = new TopBar(context, onLogout);
    this.list = new DeviceList(context);
    this.events = new EventList(context);
    this.panel = new DevicePanel(
      context,
      (on) => {
        if (this.map === null) return;
        this.map.follow = on;
        if (on && this.store.selected !== null) this.showDevice(this.store.selected);
      },
      (id) => this.events.reveal(id),
    );
    this.alarm = new Alarm(context, (event) => {
      if (this.store.devices.has(event.device)) this.showDevice(event.device);
      else if (event.position !== null) this.map?.flyTo(event.position);
      this.events.reveal(event.id);
    });
    this.root = h(
      'div',
      { class: 'screen' },
      this.bar.root,
      this.list.root,
      bindAttribute(h('main', { class: 'map-frame' }, this.mapPlace, this.mapTools(), legend(), this.mapNote, this.alarm.root), 'aria-label', (t) => t.map.title),
      h('aside', { class: 'side' }, this.panel.root, this.events.root),
    );
    this.feed = new Feed(feedBase(), browserLine, {
      cursor: () => this.store.cursor,
      part: () => this.store.part,
      onMessage: (message) => this.store.apply(message, Date.now()),
      onState: (state) => this.feedChanged(state),
      onLost: () => void this.checkSession(),
    });
    this.store.subscribe(() => this.requestFrame());
    onLanguage(() => this.requestFrame());
    this.clock = window.setInterval(() => this.tick(), 1000);
    window.addEventListener('online', this.hurry);
    window.addEventListener('pagehide', this.leave);
    document.addEventListener('keydown', this.onKey);
    this.grid = this.loadGrid();
  }

  /** Call when the root is on the page: the map measures its place. */
  start(): void {
    this.feed.start();
    void this.startMap();
    this.requestFrame();
  }

  close(): void {
    this.closed = true;
    this.feed.stop();
    this.panel.close();
    this.map?.remove();
    window.clearInterval(this.clock);
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    window.removeEventListener('online', this.hurry);
    window.removeEventListener('pagehide', this.leave);
    document.removeEventListener('keydown', this.onKey);
    document.documentElement.classList.remove('alarmed');
  }

  private readonly hurry = () => this.feed.hurry();

  /** A closed tab gives its place at the video back at once. */
  private readonly leave = () => this.panel.close();

  private readonly onKey = (e: KeyboardEvent) => {
    const typing = e.target instanceof HTMLInputElement || e.target instanceof HTMLSelectElement;
    if (e.key === 'Escape' && !typing && document.fullscreenElement === null) this.store.select(null);
  };

  private requestFrame(): void {
    if (this.closed) return;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.render();
    });
  }

  private render(): void {
    void this.followGrid();
    this.bar.render();
    this.bar.renderClock(this.feed.state, this.feed.lastMessageMs);
    this.list.render();
    this.events.render();
    this.alarm.render();
    this.panel.render(this.map?.follow ?? false);
    this.root.classList.toggle('with-device', this.store.selected !== null);
    this.map?.render();
  }

  private tick(): void {
    this.bar.renderClock(this.feed.state, this.feed.lastMessageMs);
    this.list.renderAges();
    this.panel.tick();
    this.alarm.tick();
  }

  private showDevice(id: string): void {
    this.store.select(id);
    const position = this.store.devices.get(id)?.position;
    if (position != null) this.map?.flyTo(position);
  }

  private feedChanged(state: FeedState): void {
    this.root.dataset['feed'] = state;
    this.requestFrame();
  }

  /** A socket that was refused looks like one that broke: only the API says whether the login still holds. */
  private async checkSession(): Promise<void> {
    try {
      if ((await api.me()) === null && !this.closed) this.onSessionEnd();
    } catch {
      // The gateway is away; the feed keeps trying.
    }
  }

  /** The gateway reads its grid again when the file changes; the map follows. */
  private async followGrid(): Promise<void> {
    const version = this.store.gridVersion;
    if (version === null || version === this.gridVersion) return;
    const isFirst = this.gridVersion === null;
    this.gridVersion = version;
    // The first one is loaded when the screen opens.
    if (isFirst) return;
    const grid = await this.loadGrid();
    if (!this.closed && grid !== null) this.map?.setGrid(grid);
  }

  private async loadGrid(): Promise<api.Grid | null> {
    try {
      const grid = await api.grid();
      for (const { properties } of grid.features) {
        const p: GridProperties | null = properties;
        if (p !== null) this.places.set(p.id, p.name ?? p.id);
      }
      this.cells = cellTree(grid);
      this.requestFrame();
      return grid;
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error);
      this.noteOnMap((t) => t.map.noGrid(words));
      return null;
    }
  }

  private async startMap(): Promise<void> {
    try {
      // The map is the larger half of the program: lists and video do not wait for it.
      const { MapView, canDrawMap } = await import('../map/view');
      if (this.closed) return;
      if (!canDrawMap()) return this.mapAbsent((t) => t.map.noWebgl);
      this.map = new MapView(this.mapPlace, this.store, readPalette());
      window.kerbside = { store: this.store, map: this.map.map };
      const grid = await this.grid;
      if (this.closed) return;
      if (grid !== null) this.map.setGrid(grid);
      this.requestFrame();
    } catch (error) {
      console.error('map', error);
      this.mapAbsent((t) => t.map.failed);
    }
  }

  private mapAbsent(words: (t: Dictionary) => string): void {
    this.root.classList.add('no-map');
    this.noteOnMap(words);
  }

  private noteOnMap(words: (t: Dictionary) => string): void {
    bindText(this.mapNote, words);
    this.mapNote.hidden = false;
  }

  private mapTools(): HTMLElement {
    return h(
      'div',
      { class: 'map-tools' },
      iconButton({}, sign('plus'), (t) => t.map.zoomIn, () => this.map?.zoom(1)),
      iconButton({}, sign('minus'), (t) => t.map.zoomOut, () => this.map?.zoom(-1)),
      iconButton({ 'data-testid': 'map-fit' }, sign('fit'), (t) => t.map.fit, () => this.map?.fit()),
    );
  }
}

function legend(): HTMLElement {
  const states = ['live', 'stale', 'coasting', 'lost'] as const;
  const node = h(
    'ul',
    { class: 'legend' },
    ...states.map((s) => h('li', { 'data-state': s }, h('span', { class: 'dot' }), label('span', {}, (t) => t.state[s]))),
    h('li', { class: 'sos' }, h('span', { class: 'dot' }), label('span', {}, (t) => t.panel.sos)),
    h('li', { class: 'view' }, h('span', { class: 'dot' }), label('span', {}, (t) => t.map.footprint)),
    h('li', { class: 'air' }, h('span', { class: 'dot' }), label('span', {}, (t) => t.list.onAir)),
  );
  return bindAttribute(node, 'aria-label', (t) => t.map.legend);
}

function feedBase(): string {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  return `${scheme}://${location.host}/api/v1/feed`;
}
