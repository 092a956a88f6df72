// How the map looks: layers over our own data, nothing fetched. Glyphs are drawn from the screen's own fonts because
// the style names no glyph address.

import type { ExpressionSpecification, StyleSpecification } from 'maplibre-gl';

import type { Palette } from '../palette';
import { areaLayers } from './areas';
import { groundLayers } from './ground-style';

export const SOURCES = {
  cells: 'cells',
  cellNames: 'cell-names',
  zones: 'zones',
  zoneNames: 'zone-names',
  trail: 'trail',
  footprints: 'footprints',
  certainty: 'certainty',
  past: 'past',
  devices: 'devices',
} as const;

export const DEVICE_LAYER = 'device-symbols';

/** Zoom from which the names of devices are shown. */
const NAMES_ZOOM = 14.5;
export const FONT = ['Noto Sans CJK SC, Noto Sans SC, PingFang SC, Microsoft YaHei, WenQuanYi Micro Hei, sans-serif'];

export function mapStyle(palette: Palette): StyleSpecification {
  const empty = { type: 'FeatureCollection' as const, features: [] };
  const source = () => ({ type: 'geojson' as const, data: empty });
  return {
    version: 8,
    sources: {
      [SOURCES.cells]: source(),
      [SOURCES.cellNames]: source(),
      [SOURCES.zones]: source(),
      [SOURCES.zoneNames]: source(),
      [SOURCES.trail]: { ...source(), lineMetrics: true },
      [SOURCES.footprints]: source(),
      [SOURCES.certainty]: source(),
      [SOURCES.past]: source(),
      [SOURCES.devices]: source(),
    },
    layers: [
      { id: 'ground', type: 'background', paint: { 'background-color': palette.ground } },
      ...areaLayers(palette),
      ...groundLayers(palette),
      {
        id: 'trail-line',
        type: 'line',
        source: SOURCES.trail,
        layout: { 'line-cap': 'round', 'line-join': 'round' },
        paint: {
          'line-width': 3,
          'line-gradient': [
            'interpolate',
            ['linear'],
            ['line-progress'],
            0,
            'rgba(0, 0, 0, 0)',
            1,
            palette.accent,
          ],
        },
      },
      {
        id: 'device-selected',
        type: 'circle',
        source: SOURCES.devices,
        filter: ['get', 'selected'],
        paint: {
          'circle-radius': 19,
          'circle-color': palette.accent,
          'circle-opacity': 0.16,
          'circle-stroke-color': palette.accent,
          'circle-stroke-width': 1.5,
        },
      },
      {
        id: 'device-names',
        type: 'symbol',
        source: SOURCES.devices,
        minzoom: NAMES_ZOOM,
        layout: {
          'text-field': ['get', 'label'],
          'text-font': FONT,
          'text-size': 11,
          'text-anchor': 'top',
          'text-offset': [0, 1.5],
          'text-padding': 0,
          'symbol-sort-key': ['-', 0, ['get', 'order']],
        },
        paint: { 'text-color': palette.text, 'text-halo-color': palette.halo, 'text-halo-width': 1.4 },
      },
      {
        id: 'device-headings',
        type: 'symbol',
        source: SOURCES.devices,
        filter: ['!=', ['get', 'headingIcon'], ''],
        layout: {
          'icon-image': ['get', 'headingIcon'],
          'icon-rotate': ['get', 'heading'],
          'icon-rotation-alignment': 'map',
          'icon-allow-overlap': true,
          'icon-ignore-placement': true,
          'icon-size': symbolSize(),
        },
      },
      {
        id: DEVICE_LAYER,
        type: 'symbol',
        source: SOURCES.devices,
        layout: {
          'icon-image': ['get', 'icon'],
          'icon-allow-overlap': true,
          // Placed before the names below it, so that names give way to symbols.
          'icon-padding': 0,
          'icon-size': symbolSize(),
          'symbol-sort-key': ['get', 'order'],
          'symbol-z-order': 'source',
        },
      },
    ],
  };
}

function symbolSize(): ExpressionSpecification {
  return ['interpolate', ['linear'], ['zoom'], 11, 0.5, 13.5, 0.72, 15, 0.88, 16.5, 1];
}
