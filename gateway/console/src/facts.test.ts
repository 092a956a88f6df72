import { describe, expect, it } from 'vitest';

import faultNames from '../../../codecs/src/telemetry/report.rs?raw';
import { byLevel, clockText, property, worstAlarm } from './facts';
import { en } from './i18n/en';
import { zh } from './i18n/zh';

describe('properties', () => {
  it.each([
    ['wind_speed_mps', 3.5, 'wind speed', '3.5 m/s'],
    ['signal_dbm', -71, 'signal', '-71 dBm'],
    ['network_quality_0_to_5', 4, 'network quality', '4 / 5'],
    ['network_rate_kb_s', 12.345, 'network rate', '12.3 kB/s'],
    ['roll_deg', 1.1, 'roll', '1.1°'],
    ['inside_temperature_c', 21, 'inside temperature', '21 °C'],
    ['lamp', true, 'lamp', 'yes'],
    ['network', '5G', 'network', '5G'],
    ['remaining_flight_s', 900, 'remaining flight', '900 s'],
    ['wind_speed_raw', 21, 'wind speed', '21'],
  ])('%s %s', (name, value, words, told) => {
    expect(property(name, value, en)).toEqual({ name: words, value: told });
  });

  it('a text keeps its whole name, and an inherited name is nothing special', () => {
    expect(property('made_m', 'x', en)).toEqual({ name: 'made m', value: 'x' });
    expect(property('constructor', 1, zh)).toEqual({ name: 'constructor', value: '1' });
  });

  it('known ones have Chinese names', () => {
    expect(property('wind_speed_mps', 3.5, zh)).toEqual({ name: '风速', value: '3.5 m/s' });
  });
});

it('a clock is slow, fast or right within what is known', () => {
  expect(clockText({ behind_ms: 1200, sigma_ms: 30, drift_ppm: 12.34, jumps: 2 }, en)).toBe('1.2 s slow ± 30 ms · drifts +12.3 ppm · 2 jumps');
  expect(clockText({ behind_ms: -7_200_000, sigma_ms: 50, drift_ppm: null, jumps: 0 }, en)).toBe('2 h fast ± 50 ms');
  expect(clockText({ behind_ms: -20, sigma_ms: 50, drift_ppm: 0, jumps: 0 }, en)).toBe('right ± 50 ms · drifts 0 ppm');
});

it('the worst alarm is shown, a notice is not', () => {
  const alarm = (level: 'notice' | 'caution' | 'warning') => ({ code: level, level });
  expect(worstAlarm(undefined)).toBeNull();
  expect(worstAlarm([alarm('notice')])).toBeNull();
  expect(worstAlarm([alarm('caution'), alarm('warning')])).toBe('warning');
  expect(byLevel([alarm('notice'), alarm('warning'), alarm('caution')]).map((a) => a.code)).toEqual(['warning', 'caution', 'notice']);
});

it('every fault that the gateway can name has words in both languages', () => {
  const names = [...(faultNames.split('impl Fault')[1] ?? '').matchAll(/Self::\w+ => "(\w+)"/g)].map((m) => m[1] as string);
  expect(names.length).toBeGreaterThan(20);
  for (const name of names) {
    expect(Object.keys(en.fault)).toContain(name);
    expect(Object.keys(zh.fault)).toContain(name);
  }
});
