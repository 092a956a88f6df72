// What is drawn on the ground around devices: the uncertainty of the selected one, its newest fix, what cameras see. Pure.

import type { Feature, FeatureCollection, LineString, Point, Polygon } from 'geojson';

import type { Device, LonLat, Position } from '../contract';
import { coasted, moved, radius68 } from '../motion';
import { pixelsAtZoom0 } from './lengths';

const CORNERS = 48;

export type GroundProperties = { what: 'sure' | 'raw' | 'link' };

/** A ring of `radiusM` metres. */
export function circle(at: LonLat, radiusM: number): Polygon {
  const ring: LonLat[] = [];
  for (let i = 0; i < CORNERS; i++) {
    const angle = (2 * Math.PI * i) / CORNERS;
    ring.push(moved(at, radiusM * Math.sin(angle), radiusM * Math.cos(angle)));
  }
  ring.push(ring[0] as LonLat);
  return { type: 'Polygon', coordinates: [ring] };
}

/** Around the selected device: how sure its position is (68 %), its newest fix as it came, and what joins the two. */
export function certainty(position: Position | null, nowMs: number): FeatureCollection<Polygon | Point | LineString, GroundProperties> {
  const features: Feature<Polygon | Point | LineString, GroundProperties>[] = [];
  if (position !== null) {
    const at = coasted(position, nowMs);
    const add = (what: GroundProperties['what'], geometry: Polygon | Point | LineString) =>
      features.push({ type: 'Feature', geometry, properties: { what } });
    if (position.sigma_m != null && position.sigma_m > 0) add('sure', circle(at, radius68(position.sigma_m)));
    if (position.raw !== undefined) {
      add('link', { type: 'LineString', coordinates: [position.raw, at] });
      add('raw', { type: 'Point', coordinates: position.raw });
    }
  }
  return { type: 'FeatureCollection', features };
}

export interface FootprintProperties {
  id: string;
  cut: boolean;
  selected: boolean;
  /** Width of the band in which its border lies (±σ), in pixels at zoom 0; 0: not known. */
  band_z0: number;
}

/** What the cameras see of devices that are where they say: of a device that is coasting or lost nobody knows. */
export function footprints(devices: Iterable<Device>, selected: string | null): FeatureCollection<Polygon, FootprintProperties> {
  const features: Feature<Polygon, FootprintProperties>[] = [];
  for (const { id, footprint, state } of devices) {
    if (footprint == null || footprint.polygon.length < 3 || (state !== 'live' && state !== 'stale')) continue;
    const first = footprint.polygon[0] as LonLat;
    features.push({
      type: 'Feature',
      geometry: { type: 'Polygon', coordinates: [[...footprint.polygon, first]] },
      properties: {
        id,
        cut: footprint.is_cut,
        selected: id === selected,
        band_z0: footprint.sigma_m === null ? 0 : pixelsAtZoom0(2 * footprint.sigma_m, first[1]),
      },
    });
  }
  return { type: 'FeatureCollection', features };
}
