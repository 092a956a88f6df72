// The picture as GeoJSON: what the map shows of the store. Pure.

import type { Feature, FeatureCollection, LineString, Point, Position as Coordinates } from 'geojson';

import type { Grid } from '../api';
import type { GridProperties, LonLat } from '../contract';
import { worstAlarm } from '../facts';
import { coasted, speedLeft } from '../motion';
import { inDistress, isShown } from '../people';
import type { Store } from '../store';
import { pixelsAtZoom0 } from './lengths';
import { headingName, symbolName } from './symbols';

export interface DeviceProperties {
  id: string;
  icon: string;
  heading: number;
  headingIcon: string;
  label: string;
  selected: boolean;
  /** Drawn later means on top: alarms, then the living. */
  order: number;
}

const ORDER = { live: 4, stale: 3, coasting: 2, lost: 1, silent: 0 } as const;

export interface Drawn {
  collection: FeatureCollection<Point, DeviceProperties>;
  /** Of the fastest marker that still moves on by itself, m/s; 0: all rest. */
  fastestMps: number;
}

/** The markers inside of `box` (null: all) where they are at `nowMs` of the gateway's clock. */
export function deviceFeatures(store: Store, nowMs: number, box: Box | null): Drawn {
  const onAir = store.devicesOnAir();
  const features: Feature<Point, DeviceProperties>[] = [];
  const distress = inDistress(store.devices.values());
  let fastestMps = 0;
  for (const device of store.devices.values()) {
    const { position, state } = device;
    if (position === null || !isShown(device)) continue;
    const sos = distress.has(device.id);
    const at = coasted(position, nowMs);
    if (box !== null && !isInside(box, at)) continue;
    fastestMps = Math.max(fastestMps, speedLeft(position, nowMs));
    const heading = position.heading_deg ?? position.motion?.course_deg;
    const turns = heading != null && (state === 'live' || sos);
    features.push({
      type: 'Feature',
      geometry: { type: 'Point', coordinates: at },
      properties: {
        id: device.id,
        icon: symbolName({
          kind: device.kind.replaceAll('|', ' '),
          state,
          sos,
          onAir: onAir.has(device.id),
          alarm: worstAlarm(device.alarms),
          restricted: device.restricted === true,
        }),
        heading: heading ?? 0,
        headingIcon: turns ? headingName(state, sos) : '',
        label: device.id,
        selected: device.id === store.selected,
        order: (sos ? 10 : 0) + (device.id === store.selected ? 5 : 0) + (ORDER[state] ?? 0),
      },
    });
  }
  return { collection: { type: 'FeatureCollection', features }, fastestMps };
}

export function trailFeature(trail: readonly LonLat[]): FeatureCollection<LineString> {
  const features: Feature<LineString>[] =
    trail.length < 2
      ? []
      : [{ type: 'Feature', properties: {}, geometry: { type: 'LineString', coordinates: [...trail] } }];
  return { type: 'FeatureCollection', features };
}

const ZONES: readonly GridProperties['type'][] = ['zone', 'corridor'];

export function cellsOf(grid: Grid): Grid {
  return { type: 'FeatureCollection', features: grid.features.filter((f) => !isZone(f.properties)) };
}

export function zonesOf(grid: Grid): Grid {
  const zones = grid.features.filter((f) => isZone(f.properties));
  return { type: 'FeatureCollection', features: zones.map(withWidth) };
}

/** A corridor is a line that is as wide as it says, whatever the zoom. */
function withWidth(zone: Grid['features'][number]): Grid['features'][number] {
  const width = zone.properties.width_m;
  const box = width == null ? null : bounds([zone.geometry]);
  if (width == null || box === null) return zone;
  return { ...zone, properties: { ...zone.properties, width_z0: pixelsAtZoom0(width, (box[1] + box[3]) / 2) } };
}

function isZone(properties: GridProperties | null): boolean {
  return properties !== null && ZONES.includes(properties.type);
}

export interface AreaName {
  id: string;
  name: string;
  type: GridProperties['type'];
  kind?: string;
}

/** One point per cell or zone where its name stands, so that a name is drawn once however the area is cut in tiles. */
export function namePoints(grid: Grid): FeatureCollection<Point, AreaName> {
  const features: Feature<Point, AreaName>[] = [];
  for (const area of grid.features) {
    const box = bounds([area.geometry]);
    if (box === null) continue;
    const { id, name, type, kind } = area.properties;
    const zone = isZone(area.properties);
    features.push({
      type: 'Feature',
      // A zone's name stands at its upper edge, a cell's in its upper part: the middle is where devices are.
      geometry: { type: 'Point', coordinates: [(box[0] + box[2]) / 2, box[3] - (zone ? 0 : 0.2) * (box[3] - box[1])] },
      properties: { id, name: name ?? id, type, ...(kind == null ? {} : { kind }) },
    });
  }
  return { type: 'FeatureCollection', features };
}

export type Box = [west: number, south: number, east: number, north: number];

export function gridBounds(grid: Grid): Box | null {
  return bounds(grid.features.map((f) => f.geometry));
}

export function deviceBounds(store: Store): Box | null {
  let box: Box | null = null;
  for (const device of store.devices.values()) {
    if (device.position !== null && isShown(device)) box = grow(box, [device.position.lon, device.position.lat]);
  }
  return box;
}

export function lineBounds(line: readonly LonLat[]): Box | null {
  return line.reduce<Box | null>((box, at) => grow(box, at), null);
}

/** A box with as much again on each side: what comes into view before the next draw is there already. */
export function padded([west, south, east, north]: Box): Box {
  const [w, h] = [east - west, north - south];
  return [west - w, south - h, east + w, north + h];
}

function isInside([west, south, east, north]: Box, [lon, lat]: LonLat): boolean {
  return lon >= west && lon <= east && lat >= south && lat <= north;
}

function bounds(geometries: readonly Grid['features'][number]['geometry'][]): Box | null {
  let box: Box | null = null;
  const walk = (node: unknown): void => {
    if (!Array.isArray(node)) return;
    if (typeof node[0] === 'number') box = grow(box, node as Coordinates);
    else node.forEach(walk);
  };
  for (const geometry of geometries) if (geometry !== null && 'coordinates' in geometry) walk(geometry.coordinates);
  return box;
}

function grow(box: Box | null, at: Coordinates): Box {
  const [lon = 0, lat = 0] = at;
  if (box === null) return [lon, lat, lon, lat];
  return [Math.min(box[0], lon), Math.min(box[1], lat), Math.max(box[2], lon), Math.max(box[3], lat)];
}
