// Layers of what lies on the ground around devices: camera views, past tracks, how sure a position is.

import type { ExpressionSpecification, LayerSpecification } from 'maplibre-gl';

import type { Palette } from '../palette';
import { asWideAs } from './areas';
import { SOURCES } from './style';

export function groundLayers(palette: Palette): LayerSpecification[] {
  const selected: ExpressionSpecification = ['get', 'selected'];
  const view = (id: string, cut: boolean, dashes: number[]): LayerSpecification => ({
    id,
    type: 'line',
    source: SOURCES.footprints,
    filter: ['==', ['get', 'cut'], cut],
    paint: {
      'line-color': palette.view,
      'line-width': ['case', selected, 2, 1],
      'line-opacity': 0.8,
      ...(dashes.length > 0 ? { 'line-dasharray': dashes } : {}),
    },
  });
  const past = (id: string, what: string, dashes: number[]): LayerSpecification => ({
    id,
    type: 'line',
    source: SOURCES.past,
    filter: ['==', ['get', 'what'], what],
    layout: { 'line-join': 'round' },
    paint: {
      'line-color': palette.text,
      'line-width': 2,
      'line-opacity': 0.65,
      ...(dashes.length > 0 ? { 'line-dasharray': dashes } : {}),
    },
  });
  return [
    {
      id: 'view-areas',
      type: 'fill',
      source: SOURCES.footprints,
      paint: { 'fill-color': palette.view, 'fill-opacity': ['case', selected, 0.16, 0.07] },
    },
    {
      // The border lies somewhere in this band.
      id: 'view-band',
      type: 'line',
      source: SOURCES.footprints,
      layout: { 'line-join': 'round' },
      paint: { 'line-color': palette.view, 'line-opacity': ['case', selected, 0.14, 0.05], 'line-width': asWideAs('band_z0') },
    },
    view('view-lines', false, []),
    view('view-lines-cut', true, [3, 2]),
    past('past-line', 'line', []),
    past('past-late', 'late', [2, 2]),
    {
      id: 'past-ends',
      type: 'circle',
      source: SOURCES.past,
      filter: ['in', ['get', 'what'], ['literal', ['start', 'end']]],
      paint: {
        'circle-radius': 4,
        'circle-color': ['case', ['==', ['get', 'what'], 'end'], palette.text, palette.ground],
        'circle-stroke-color': palette.text,
        'circle-stroke-width': 1.5,
      },
    },
    {
      id: 'sure-area',
      type: 'fill',
      source: SOURCES.certainty,
      filter: ['==', ['get', 'what'], 'sure'],
      paint: { 'fill-color': palette.accent, 'fill-opacity': 0.14, 'fill-outline-color': palette.accent },
    },
    {
      id: 'raw-link',
      type: 'line',
      source: SOURCES.certainty,
      filter: ['==', ['get', 'what'], 'link'],
      paint: { 'line-color': palette.text, 'line-width': 1, 'line-opacity': 0.6 },
    },
    {
      id: 'raw-fix',
      type: 'circle',
      source: SOURCES.certainty,
      filter: ['==', ['get', 'what'], 'raw'],
      paint: { 'circle-radius': 3.5, 'circle-opacity': 0, 'circle-stroke-color': palette.text, 'circle-stroke-width': 1.5 },
    },
  ];
}
