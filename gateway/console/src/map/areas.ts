// Layers of the grid and of zones: each level of the grid at its zoom, corridors as wide as they are.

import type { ExpressionSpecification, LayerSpecification } from 'maplibre-gl';

import type { GridProperties } from '../contract';
import type { Palette } from '../palette';
import { FONT, SOURCES } from './style';

type Level = Exclude<GridProperties['type'], 'zone' | 'corridor'>;

interface Look {
  level: Level;
  /** Zooms from which its borders are drawn, and in which its names stand. */
  lines: number;
  names: [from: number, to: number];
  /** Widths of its borders at zoom 11, 15 and 18. */
  widths: [number, number, number];
}

/** The finest first: the coarser borders lie on top. A cell of no level is drawn as a grid always. */
const LOOKS: readonly Look[] = [
  { level: 'cell', lines: 0, names: [14, 24], widths: [0.5, 1.2, 2] },
  { level: 'grid', lines: 14.2, names: [15.6, 24], widths: [0.3, 0.7, 1.2] },
  { level: 'community', lines: 12.6, names: [14.2, 15.6], widths: [0.4, 1, 1.8] },
  { level: 'street', lines: 0, names: [11.5, 14.2], widths: [0.9, 2, 3] },
];

export function areaLayers(palette: Palette): LayerSpecification[] {
  return [
    { id: 'cell-areas', type: 'fill', source: SOURCES.cells, paint: { 'fill-color': palette.cellFill, 'fill-antialias': false } },
    {
      id: 'cell-here',
      type: 'fill',
      source: SOURCES.cells,
      filter: cellIs(null),
      paint: { 'fill-color': palette.accent, 'fill-opacity': 0.1 },
    },
    ...LOOKS.map((look) => cellLines(look, palette)),
    {
      id: 'zone-areas',
      type: 'fill',
      source: SOURCES.zones,
      filter: ['!=', ['geometry-type'], 'LineString'],
      paint: { 'fill-color': zoneColor(palette), 'fill-opacity': ['case', isRestricted(), 0.16, 0.05] },
    },
    {
      id: 'corridors',
      type: 'line',
      source: SOURCES.zones,
      filter: ['has', 'width_z0'],
      layout: { 'line-join': 'round' },
      paint: { 'line-color': palette.zone, 'line-opacity': 0.16, 'line-width': asWideAs('width_z0') },
    },
    {
      id: 'zone-lines',
      type: 'line',
      source: SOURCES.zones,
      paint: { 'line-color': zoneColor(palette), 'line-width': 1.4, 'line-dasharray': [4, 3], 'line-opacity': 0.75 },
    },
    ...LOOKS.map((look) => cellNames(look, palette)),
    {
      id: 'zone-names',
      type: 'symbol',
      source: SOURCES.zoneNames,
      minzoom: 13,
      layout: {
        'text-field': ['get', 'name'],
        'text-font': FONT,
        'text-size': 11,
        'text-anchor': 'top',
        'text-offset': [0, 0.4],
        'text-letter-spacing': 0.06,
      },
      paint: { 'text-color': zoneColor(palette), 'text-halo-color': palette.ground, 'text-halo-width': 1.2 },
    },
  ];
}

/** Selects one cell of the grid; null selects none. */
export function cellIs(id: string | null): ExpressionSpecification {
  return ['==', ['get', 'id'], id ?? ''];
}

/** A line that is as wide on the ground as the property says, in pixels at zoom 0. */
export function asWideAs(property: string): ExpressionSpecification {
  const at = (zoom: number): ExpressionSpecification => ['*', ['get', property], 2 ** zoom];
  return ['interpolate', ['exponential', 2], ['zoom'], 8, at(8), 22, at(22)];
}

function cellLines({ level, lines, widths }: Look, palette: Palette): LayerSpecification {
  const [far, near, close] = widths;
  return {
    id: `${level}-lines`,
    type: 'line',
    source: SOURCES.cells,
    minzoom: lines,
    filter: ['==', ['get', 'type'], level],
    paint: { 'line-color': palette.cellLine, 'line-width': ['interpolate', ['linear'], ['zoom'], 11, far, 15, near, 18, close] },
  };
}

function cellNames({ level, names }: Look, palette: Palette): LayerSpecification {
  return {
    id: `${level}-names`,
    type: 'symbol',
    source: SOURCES.cellNames,
    minzoom: names[0],
    maxzoom: names[1],
    filter: ['==', ['get', 'type'], level],
    layout: {
      'text-field': ['get', 'name'],
      'text-font': FONT,
      'text-size': ['interpolate', ['linear'], ['zoom'], 12, 10, 14, 11, 17, 14],
      'text-max-width': 8,
    },
    paint: { 'text-color': palette.cellText },
  };
}

function isRestricted(): ExpressionSpecification {
  return ['==', ['get', 'kind'], 'restricted'];
}

function zoneColor(palette: Palette): ExpressionSpecification {
  return ['case', isRestricted(), palette.restricted, palette.zone];
}
