import { expect, it } from 'vitest';

import type { Device } from './contract';
import { companions, grouped, inDistress, isShown } from './people';

const device = (id: string, person: string | null = null, primary = true): Device => ({
  id, kind: 'bodycam', unit: null, model: null, mode: null, state: 'live', online: true, position: null, cell: null,
  zones: [], battery_pct: null, sos: false, faults: {}, person, primary,
});
const ids = (list: Device[]) => list.map((d) => d.id);

it('who does not say so is shown', () => {
  expect(isShown({})).toBe(true);
  expect(isShown({ primary: false })).toBe(false);
});

it('the other devices of a person stand below the one that is shown, wherever their names sort', () => {
  const list = [device('a', 'p2', false), device('b', 'p1'), device('c'), device('d', 'p1', false), device('e', 'p2')];
  expect(ids(grouped(list))).toEqual(['b', 'd', 'c', 'e', 'a']);
});

it('a device whose person shows nothing else (filtered away) stays where it is', () => {
  expect(ids(grouped([device('a'), device('b', 'p9', false), device('c')]))).toEqual(['a', 'b', 'c']);
});

it('companions are the others of the person', () => {
  const all = [device('r', 'p1', false), device('b', 'p1'), device('x', 'p2'), device('y')];
  expect(ids(companions(all[1] as Device, all))).toEqual(['r']);
  expect(companions(all[3] as Device, all)).toEqual([]);
});

it('a call from a device without a marker is shown at the one of its person', () => {
  const all = [device('b', 'p1'), { ...device('r', 'p1', false), sos: true }, device('x'), { ...device('y'), sos: true }];
  expect([...inDistress(all)]).toEqual(['b', 'y']);
});
