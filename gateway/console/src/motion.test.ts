import { expect, it } from 'vitest';

import type { Position } from './contract';
import { coasted, moved, radius68, speedLeft } from './motion';

const AT = 1_795_219_200_000;
const east: Position = {
  lat: 0, lon: 10, arrived_ms: AT, happened_ms: AT, motion: { speed_mps: 10, course_deg: 90, coast_s: 5 },
};
const metresEast = (atMs: number) => (coasted(east, atMs)[0] - 10) * 111_320;

it('a marker moves on by the documented rule and comes to rest', () => {
  expect(metresEast(AT)).toBeCloseTo(0);
  expect(metresEast(AT + 1000)).toBeCloseTo(10 * 5 * (1 - Math.exp(-0.2)), 3);
  expect(metresEast(AT + 600_000)).toBeCloseTo(50, 3);
  expect(coasted(east, AT + 5000)[1]).toBeCloseTo(0);
});

it('a message from the future does not move it backwards', () => {
  expect(metresEast(AT - 3000)).toBe(0);
});

it('without motion it stays', () => {
  expect(coasted({ ...east, motion: null }, AT + 9000)).toEqual([10, 0]);
  expect(coasted({ lat: 1, lon: 2, arrived_ms: AT }, AT + 9000)).toEqual([2, 1]);
  expect(coasted({ ...east, motion: { speed_mps: 3, course_deg: 0, coast_s: 0 } }, AT + 9000)).toEqual([10, 0]);
});

it('the speed that is left fades to nothing', () => {
  expect(speedLeft(east, AT)).toBeCloseTo(10);
  expect(speedLeft(east, AT + 5000)).toBeCloseTo(10 / Math.E);
  expect(speedLeft(east, AT + 60_000)).toBe(0);
});

it('metres become degrees where they are', () => {
  const [lon, lat] = moved([100, 60], 111_320, -111_320);
  expect(lon).toBeCloseTo(102, 6);
  expect(lat).toBeCloseTo(59, 6);
  expect(radius68(10)).toBeCloseTo(15.15);
});
