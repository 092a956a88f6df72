// A past track as lines: broken where nothing was known, dashed where it was told late. Pure.

import type { Feature, FeatureCollection, LineString, Point } from 'geojson';

import type { LonLat, PastTrack } from '../contract';

/** After so long without a fix the gateway begins a new track; so does the line. */
const GAP_MS = 120_000;

export interface PastProperties {
  what: 'line' | 'late' | 'start' | 'end';
}

export function pastFeatures(track: PastTrack): FeatureCollection<LineString | Point, PastProperties> {
  const features: Feature<LineString | Point, PastProperties>[] = [];
  const points = track.geometry?.coordinates ?? [];
  const { happened_ms: at, back_filled: late } = track.properties;
  let line: LonLat[] = [];
  let isLate = false;
  const flush = () => {
    if (line.length > 1) {
      features.push({ type: 'Feature', geometry: { type: 'LineString', coordinates: line }, properties: { what: isLate ? 'late' : 'line' } });
    }
    line = [];
  };
  points.forEach((point, i) => {
    const before = points[i - 1];
    const gap = i > 0 && (at[i] ?? 0) - (at[i - 1] ?? 0) > GAP_MS;
    if (gap || (late[i] ?? false) !== isLate) {
      flush();
      isLate = late[i] ?? false;
      // The step to the first of another manner belongs to it.
      if (!gap && before !== undefined) line.push(before);
    }
    line.push(point);
  });
  flush();
  const dot = (what: 'start' | 'end', point: LonLat | undefined) => {
    if (point !== undefined) features.push({ type: 'Feature', geometry: { type: 'Point', coordinates: point }, properties: { what } });
  };
  dot('start', points[0]);
  dot('end', points.length > 1 ? points.at(-1) : undefined);
  return { type: 'FeatureCollection', features };
}
