// Where a marker is between two fixes (gateway/API.md, "Tracks"). Pure.

import type { LonLat, Position } from './contract';

const METRES_PER_DEGREE = 111_320;
/** Slower than this a marker rests. */
const REST_MPS = 0.1;

/** The estimate moved on to `atMs` (the gateway's wallclock): its velocity fades, so that it comes to rest by itself. */
export function coasted(position: Position, atMs: number): LonLat {
  const { motion, happened_ms } = position;
  if (motion == null || happened_ms === undefined || !(motion.coast_s > 0)) return [position.lon, position.lat];
  const t = Math.max(0, (atMs - happened_ms) / 1000);
  const metres = motion.speed_mps * motion.coast_s * (1 - Math.exp(-t / motion.coast_s));
  const course = (motion.course_deg * Math.PI) / 180;
  return moved([position.lon, position.lat], metres * Math.sin(course), metres * Math.cos(course));
}

/** What is left of its speed, m/s; 0 when it rests. */
export function speedLeft(position: Position, atMs: number): number {
  const { motion, happened_ms } = position;
  if (motion == null || happened_ms === undefined || !(motion.coast_s > 0)) return 0;
  const left = motion.speed_mps * Math.exp(-Math.max(0, atMs - happened_ms) / 1000 / motion.coast_s);
  return left < REST_MPS ? 0 : left;
}

/** A place some metres to the east and north. */
export function moved([lon, lat]: LonLat, eastM: number, northM: number): LonLat {
  const shrink = Math.max(0.01, Math.cos((lat * Math.PI) / 180));
  return [lon + eastM / (METRES_PER_DEGREE * shrink), lat + northM / METRES_PER_DEGREE];
}

/** Radius that holds the true place in 68 % of cases, of the standard deviation on each axis: that of `accuracy_m`. */
export function radius68(sigmaM: number): number {
  return 1.515 * sigmaM;
}
