// Metres on a map of pixels, and how often a moving map is worth drawing. Pure.

const EQUATOR_M = 40_075_016.7;
const TILE_PX = 512;

/** How many pixels so many metres are at zoom 0; each zoom doubles them. */
export function pixelsAtZoom0(metres: number, lat: number): number {
  return (metres * TILE_PX) / (EQUATOR_M * Math.cos((lat * Math.PI) / 180));
}

export function metresPerPixel(zoom: number, lat: number): number {
  return 1 / (pixelsAtZoom0(1, lat) * 2 ** zoom);
}

const PACE_MS_MIN = 100;
const PACE_MS_MAX = 1000;
/** A marker that moved less looks the same. */
const STEP_PX = 0.4;

/** Milliseconds until the next draw is worth it: when the fastest marker has moved visibly. */
export function paceMs(fastestMps: number, metresPerPx: number): number {
  const visible = fastestMps > 0 ? ((STEP_PX * metresPerPx) / fastestMps) * 1000 : PACE_MS_MAX;
  return Math.max(PACE_MS_MIN, Math.min(PACE_MS_MAX, visible));
}
