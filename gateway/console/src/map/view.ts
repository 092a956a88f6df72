// The map on the page: turns store changes into source updates and clicks into selections.

import 'maplibre-gl/dist/maplibre-gl.css';
import { Map as MapLibre, Marker, ScaleControl, setWorkerUrl, type GeoJSONSource } from 'maplibre-gl';
import workerUrl from 'maplibre-gl/dist/maplibre-gl-worker.mjs?url';

import type { Grid } from '../api';
import type { LonLat, PastTrack } from '../contract';
import { coasted } from '../motion';
import type { Palette } from '../palette';
import { inDistress } from '../people';
import type { Store } from '../store';
import { cellIs } from './areas';
import {
  cellsOf, deviceBounds, deviceFeatures, gridBounds, lineBounds, namePoints, padded, trailFeature, zonesOf, type Box,
} from './features';
import { certainty, footprints } from './ground';
import { pastFeatures } from './history';
import { metresPerPixel, paceMs } from './lengths';
import { browserClock, Rhythm } from './rhythm';
import { DEVICE_LAYER, mapStyle, SOURCES } from './style';
import { drawNamed, SYMBOL_RATIO } from './symbols';

/** News are drawn at most this often: smooth to the eye, and one update of the source for all of them. */
const REDRAW_MS = 100;
/** Pulses are page elements; more alarms than this at once are red symbols without a pulse. */
const PULSES_MAX = 40;
const CLICK_REACH_PX = 8;
const CLOSE_ZOOM = 16;
const FIT = { padding: 28, duration: 600, maxZoom: 17 } as const;

export class MapView {
  readonly map: MapLibre;
  follow = false;

  private ready = false;
  private removed = false;
  private grid: Grid | null = null;
  private drawnGrid = false;
  private fitted = false;
  private drawn = { devices: -1, streams: -1, selection: -1 };
  private readonly rhythm = new Rhythm(() => this.draw(), browserClock);
  private past: PastTrack | null = null;
  private readonly pulses = new Map<string, Marker>();

  constructor(
    container: HTMLElement,
    private readonly store: Store,
    palette: Palette,
  ) {
    setWorkerUrl(workerUrl);
    this.map = new MapLibre({
      container,
      style: mapStyle(palette),
      center: [112.7502, 37.6901],
      zoom: 13,
      minZoom: 3,
      maxZoom: 20,
      pitchWithRotate: false,
      attributionControl: false,
      fadeDuration: 0,
      localIdeographFontFamily: 'sans-serif',
    });
    this.map.addControl(new ScaleControl({ unit: 'metric', maxWidth: 110 }), 'bottom-left');
    this.map.touchZoomRotate.disableRotation();
    this.map.setMissingStyleImageResolver((id) => {
      const image = drawNamed(id, palette);
      if (image !== null && !this.map.hasImage(id)) this.map.addImage(id, image, { pixelRatio: SYMBOL_RATIO });
    });
    this.map.on('load', () => {
      this.ready = true;
      // `loaded()` is seldom true while a fleet moves; tests wait for this instead.
      container.dataset['ready'] = 'true';
      this.drawGrid();
      this.drawPast();
      this.render();
    });
    this.map.on('click', (e) => this.select(e.point.x, e.point.y));
    this.map.on('mousemove', (e) => {
      this.map.getCanvas().style.cursor = this.deviceAt(e.point.x, e.point.y) === null ? '' : 'pointer';
    });
    this.map.on('dragstart', () => (this.follow = false));
    // Other devices come into view, and another zoom shows other steps.
    this.map.on('moveend', () => {
      if (this.ready) this.rhythm.want(0);
    });
  }

  setGrid(grid: Grid): void {
    this.grid = grid;
    this.drawGrid();
  }

  /** To be called after every change: it is drawn soon. */
  render(): void {
    if (!this.ready) return;
    const { devices, streams, selection } = this.store.revisions;
    if (this.drawn.devices === devices && this.drawn.streams === streams && this.drawn.selection === selection) return;
    this.rhythm.want(this.drawn.selection === selection ? REDRAW_MS : 0);
  }

  /** A past track beside the present; null takes it away. */
  showPast(track: PastTrack | null): void {
    this.past = track;
    if (!this.ready) return;
    this.drawPast();
    const box = lineBounds(track?.geometry?.coordinates ?? []);
    if (box === null) return;
    this.follow = false;
    this.map.fitBounds(box, { ...FIT, padding: 80 });
  }

  /** Draws all that moves; done when the map's worker is. */
  private async draw(): Promise<void> {
    const { devices, streams, selection } = this.store.revisions;
    const isNews = this.drawn.devices !== devices;
    this.drawn = { devices, streams, selection };
    const nowMs = this.store.gatewayNow(Date.now());
    const selected = this.store.selected === null ? undefined : this.store.devices.get(this.store.selected);

    const markers = deviceFeatures(this.store, nowMs, this.fitted ? this.view() : null);
    const done = this.source(SOURCES.devices).setData(markers.collection);
    void this.source(SOURCES.certainty).setData(certainty(selected?.position ?? null, nowMs));
    void this.source(SOURCES.footprints).setData(footprints(this.store.devices.values(), this.store.selected));
    void this.source(SOURCES.trail).setData(trailFeature(selected?.trail ?? []));
    this.map.setFilter('cell-here', cellIs(selected?.cell ?? null));
    this.drawPulses(nowMs);
    if (!this.fitted) this.fit(false);
    if (this.follow && isNews && selected?.position != null) {
      this.map.easeTo({ center: coasted(selected.position, nowMs), duration: 400 });
    }
    await done;
    // Between two fixes markers move on by themselves.
    if (markers.fastestMps === 0 || this.removed) return;
    const scale = metresPerPixel(this.map.getZoom(), this.map.getCenter().lat);
    this.rhythm.want(paceMs(markers.fastestMps, scale));
  }

  private drawPast(): void {
    const empty: PastTrack = { geometry: null, properties: { happened_ms: [], back_filled: [], has_more: false } };
    void this.source(SOURCES.past).setData(pastFeatures(this.past ?? empty));
  }

  /** What is in view and around it. */
  private view(): Box {
    const bounds = this.map.getBounds();
    return padded([bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()]);
  }

  fit(animate = true): void {
    const box: Box | null = (this.grid && gridBounds(this.grid)) ?? deviceBounds(this.store);
    if (box === null) return;
    this.fitted = true;
    this.follow = false;
    this.map.fitBounds(box, animate ? FIT : { ...FIT, duration: 0 });
  }

  flyTo(place: { lon: number; lat: number }): void {
    this.map.flyTo({ center: lonLat(place), zoom: Math.max(this.map.getZoom(), CLOSE_ZOOM), duration: 900 });
  }

  zoom(by: number): void {
    this.map.easeTo({ zoom: this.map.getZoom() + by, duration: 200 });
  }

  remove(): void {
    this.removed = true;
    this.rhythm.stop();
    this.map.remove();
  }

  private drawGrid(): void {
    if (!this.ready || this.grid === null) return;
    const cells = cellsOf(this.grid);
    const zones = zonesOf(this.grid);
    this.source(SOURCES.cells).setData(cells);
    this.source(SOURCES.cellNames).setData(namePoints(cells));
    this.source(SOURCES.zones).setData(zones);
    this.source(SOURCES.zoneNames).setData(namePoints(zones));
    if (!this.drawnGrid) this.fit(false);
    this.drawnGrid = true;
  }

  private drawPulses(nowMs: number): void {
    const wanted = new Map<string, LonLat>();
    for (const id of inDistress(this.store.devices.values())) {
      const position = this.store.devices.get(id)?.position;
      if (position != null && wanted.size < PULSES_MAX) wanted.set(id, coasted(position, nowMs));
    }
    for (const [id, marker] of this.pulses) {
      if (wanted.has(id)) continue;
      marker.remove();
      this.pulses.delete(id);
    }
    for (const [id, at] of wanted) {
      const existing = this.pulses.get(id);
      if (existing !== undefined) {
        existing.setLngLat(at);
        continue;
      }
      const element = document.createElement('div');
      element.className = 'pulse';
      element.setAttribute('aria-hidden', 'true');
      this.pulses.set(id, new Marker({ element }).setLngLat(at).addTo(this.map));
    }
  }

  private select(x: number, y: number): void {
    const id = this.deviceAt(x, y);
    if (id !== null) this.store.select(id);
  }

  /** The topmost device within reach of a pointer. */
  private deviceAt(x: number, y: number): string | null {
    if (!this.ready) return null;
    const reach: [[number, number], [number, number]] = [
      [x - CLICK_REACH_PX, y - CLICK_REACH_PX],
      [x + CLICK_REACH_PX, y + CLICK_REACH_PX],
    ];
    const [hit] = this.map.queryRenderedFeatures(reach, { layers: [DEVICE_LAYER] });
    const id: unknown = hit?.properties?.['id'];
    return typeof id === 'string' ? id : null;
  }

  private source(name: string): GeoJSONSource {
    const source = this.map.getSource<GeoJSONSource>(name);
    if (source === undefined) throw new Error(`the map style has no source ${name}`);
    return source;
  }
}

/** Whether this browser can draw the map at all. */
export function canDrawMap(): boolean {
  return document.createElement('canvas').getContext('webgl2') !== null;
}

function lonLat(place: { lon: number; lat: number }): LonLat {
  return [place.lon, place.lat];
}
