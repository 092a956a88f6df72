// The picture as GeoJSON: what the map shows of the store. Pure.

import type { Feature, FeatureCollection, LineString, Point, Position as Coordinates } from 'geojson';

import type { Grid } from '../api';
import type { GridProperties, LonLat } from '../contract';
import type { Store } from '../store';
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

export function deviceFeatures(store: Store): FeatureCollection<Point, DeviceProperties> {
  const onAir = store.devicesOnAir();
  const features: Feature<Point, DeviceProperties>[] = [];
  for (const device of store.devices.values()) {
    const { position, state, sos } = device;
    if (position === null) continue;
    const turns = position.heading_deg != null && (state === 'live' || sos);
    features.push({
      type: 'Feature',
      geometry: { type: 'Point', coordinates: [position.lon, position.lat] },
      properties: {
        id: device.id,
        icon: symbolName({ kind: device.kind.replaceAll('|', ' '), state, sos, onAir: onAir.has(device.id) }),
        heading: position.heading_deg ?? 0,
        headingIcon: turns ? headingName(state, sos) : '',
        label: device.id,
        selected: device.id === store.selected,
        order: (sos ? 10 : 0) + (device.id === store.selected ? 5 : 0) + (ORDER[state] ?? 0),
      },
    });
  }
  return { type: 'FeatureCollection', features };
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
  return { type: 'FeatureCollection', features: grid.features.filter((f) => isZone(f.properties)) };
}

function isZone(properties: GridProperties | null): boolean {
  return properties !== null && ZONES.includes(properties.type);
}

/** One point per cell or zone where its name stands, so that a name is drawn once however the area is cut in tiles. */
export function namePoints(grid: Grid): FeatureCollection<Point, { id: string; name: string }> {
  const features: Feature<Point, { id: string; name: string }>[] = [];
  for (const area of grid.features) {
    const box = bounds([area.geometry]);
    if (box === null) continue;
    const { id, name } = area.properties;
    const zone = isZone(area.properties);
    features.push({
      type: 'Feature',
      // A zone's name stands at its upper edge, a cell's in its upper part: the middle is where devices are.
      geometry: { type: 'Point', coordinates: [(box[0] + box[2]) / 2, box[3] - (zone ? 0 : 0.2) * (box[3] - box[1])] },
      properties: { id, name: name ?? id },
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
    if (device.position !== null) box = grow(box, [device.position.lon, device.position.lat]);
  }
  return box;
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
