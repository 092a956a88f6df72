import { describe, expect, it } from 'vitest';

import type { Device, FeedMessage, LonLat, PastTrack } from '../contract';
import { Store } from '../store';
import { cellTree } from './cells';
import { deviceFeatures, padded, zonesOf } from './features';
import { circle, certainty, footprints } from './ground';
import { pastFeatures } from './history';
import { metresPerPixel, paceMs, pixelsAtZoom0 } from './lengths';
import { readSymbol, symbolName } from './symbols';

const NOW = 1_795_219_200_000;

function device(id: string, over: Partial<Device> = {}): Device {
  return {
    id, kind: 'drone', unit: null, model: null, mode: null, state: 'live', online: true, cell: null, zones: [],
    battery_pct: null, sos: false, faults: {},
    position: { lat: 0, lon: 0, arrived_ms: NOW, happened_ms: NOW, age_ms: 0, motion: { speed_mps: 10, course_deg: 90, coast_s: 5 } },
    ...over,
  };
}

function storeOf(...devices: Device[]): Store {
  const store = new Store();
  const message: FeedMessage = { type: 'snapshot', epoch: 'e', seq: 1, now_ms: NOW, devices, streams: [], events: [] };
  store.apply(message, NOW);
  return store;
}

describe('markers', () => {
  it('move on by themselves; a person has one', () => {
    const store = storeOf(device('a'), device('b', { primary: false }));
    const drawn = deviceFeatures(store, NOW + 1000, null);
    expect(drawn.collection.features.map((f) => f.properties.id)).toEqual(['a']);
    const lon = drawn.collection.features[0]?.geometry.coordinates[0] ?? 0;
    expect(lon * 111_320).toBeCloseTo(50 * (1 - Math.exp(-0.2)), 2);
    expect(drawn.fastestMps).toBeCloseTo(10 * Math.exp(-0.2));
  });

  it('only what is in or near the view is drawn', () => {
    const store = storeOf(device('a'));
    expect(deviceFeatures(store, NOW, [1, 1, 2, 2]).collection.features).toEqual([]);
    expect(deviceFeatures(store, NOW, padded([0.5, -1, 1.5, 1])).collection.features).toHaveLength(1);
  });

  it('a symbol says what its name says', () => {
    const symbol = { kind: 'drone', state: 'coasting', sos: false, onAir: true, alarm: 'warning', restricted: true } as const;
    expect(readSymbol(symbolName(symbol))).toEqual(symbol);
    expect(readSymbol('heading|live')).toBeNull();
    const [shown] = deviceFeatures(storeOf(device('a', { alarms: [{ code: 'x', level: 'caution' }] })), NOW, null).collection.features;
    expect(readSymbol(shown?.properties.icon ?? '')?.alarm).toBe('caution');
  });
});

describe('the ground', () => {
  it('a circle has its radius in metres in every direction', () => {
    const [ring = []] = circle([100, 60], 30).coordinates;
    expect(ring).toHaveLength(49);
    for (const [lon = 0, lat = 0] of ring) {
      const [x, y] = [(lon - 100) * 111_320 * Math.cos((60 * Math.PI) / 180), (lat - 60) * 111_320];
      expect(Math.hypot(x, y)).toBeCloseTo(30, 6);
    }
  });

  it('says how sure a position is, and shows the fix that came', () => {
    const raw: LonLat = [0.001, 0];
    const position = { lat: 0, lon: 0, arrived_ms: NOW, sigma_m: 4, raw };
    const all = certainty(position, NOW).features;
    expect(all.map((f) => f.properties.what)).toEqual(['sure', 'link', 'raw']);
    expect(certainty({ lat: 0, lon: 0, arrived_ms: NOW }, NOW).features).toEqual([]);
    expect(certainty(null, NOW).features).toEqual([]);
  });

  it('footprints close their ring; one that is only a centre, or whose drone is lost, is not drawn', () => {
    const polygon: LonLat[] = [[0, 0], [1, 0], [1, 1], [0, 1]];
    const footprint = { polygon, centre: null, sigma_m: 12, is_cut: true };
    const drawn = footprints(
      [
        device('a', { footprint }),
        device('b', { footprint, state: 'lost' }),
        device('c', { footprint: { ...footprint, polygon: [] } }),
        device('d', { footprint: { ...footprint, sigma_m: null } }),
      ],
      'a',
    ).features;
    expect(drawn.map((f) => [f.properties.id, f.properties.cut, f.properties.selected])).toEqual([['a', true, true], ['d', true, false]]);
    expect(drawn[0]?.geometry.coordinates[0]).toHaveLength(5);
    expect(drawn[0]?.properties.band_z0).toBeCloseTo(pixelsAtZoom0(24, 0));
    expect(drawn[1]?.properties.band_z0).toBe(0);
  });

  it('a corridor knows its width', () => {
    const corridor = { type: 'zone' as const, id: 'r', width_m: 40 };
    const geometry = { type: 'LineString' as const, coordinates: [[0, 0], [1, 0]] };
    const [zone] = zonesOf({ type: 'FeatureCollection', features: [{ type: 'Feature', properties: corridor, geometry }] }).features;
    expect(zone?.properties.width_z0).toBeCloseTo(pixelsAtZoom0(40, 0));
  });
});

describe('lengths', () => {
  it('a pixel at zoom 0 is a 512th of the equator', () => {
    expect(metresPerPixel(0, 0)).toBeCloseTo(78_271.5, 0);
    expect(metresPerPixel(16, 60) * 2 ** 16 * 2).toBeCloseTo(78_271.5, 0);
  });

  it('a map that does not move is drawn seldom, a slow one never too often', () => {
    expect(paceMs(0, 1)).toBe(1000);
    expect(paceMs(10, 1)).toBe(100);
    expect(paceMs(2, 1)).toBe(200);
    expect(paceMs(10, 30)).toBe(1000);
  });
});

describe('past tracks', () => {
  const track = (...points: [at_s: number, late?: boolean][]): PastTrack => ({
    geometry: points.length === 0 ? null : { coordinates: points.map(([s]) => [s, 0]) },
    properties: { happened_ms: points.map(([s]) => s * 1000), back_filled: points.map(([, late]) => late ?? false), has_more: false },
  });
  const told = (t: PastTrack) => pastFeatures(t).features.map((f) => [f.properties.what, JSON.stringify(f.geometry.coordinates)]);

  it('break where nothing was known', () => {
    expect(told(track([0], [10], [200], [210]))).toEqual([
      ['line', '[[0,0],[10,0]]'],
      ['line', '[[200,0],[210,0]]'],
      ['start', '[0,0]'],
      ['end', '[210,0]'],
    ]);
  });

  it('what was told late is a line of its own that joins', () => {
    expect(told(track([0], [10], [20, true], [30])).slice(0, 3)).toEqual([
      ['line', '[[0,0],[10,0]]'],
      ['late', '[[10,0],[20,0]]'],
      ['line', '[[20,0],[30,0]]'],
    ]);
  });

  it('nothing and one point', () => {
    expect(told(track())).toEqual([]);
    expect(told(track([5]))).toEqual([['start', '[5,0]']]);
  });
});

it('cells are offered as a tree', () => {
  const cell = (id: string, parent: string | null) => ({
    type: 'Feature' as const,
    properties: { type: 'cell' as const, id, parent },
    geometry: { type: 'Point' as const, coordinates: [0, 0] },
  });
  const zone = { type: 'Feature' as const, properties: { type: 'zone' as const, id: 'z' }, geometry: { type: 'Point' as const, coordinates: [0, 0] } };
  const features = [cell('b', null), cell('a2', 'a'), cell('a', null), cell('a1', 'a'), cell('x', 'gone'), zone];
  const tree = cellTree({ type: 'FeatureCollection', features });
  expect(tree.map((e) => `${e.depth}${e.id}`)).toEqual(['0a', '1a1', '1a2', '0b', '0x']);
});
