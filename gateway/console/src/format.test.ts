import { expect, it } from 'vitest';

import { bitrate, duration, heading, named, speed } from './format';
import { en } from './i18n/en';
import { preferredLanguage } from './i18n';

it('durations keep two figures that matter', () => {
  const s = 1000;
  expect([0, 8 * s, 99 * s, 100 * s, 59 * 60 * s, 100 * 60 * s, 50 * 3600 * s].map((ms) => duration(ms, en))).toEqual([
    '0 s', '8 s', '99 s', '1 min', '59 min', '1 h', '2 d',
  ]);
  expect(duration(-5, en)).toBe('0 s');
});

it('headings wrap', () => {
  expect(heading(359.9, en)).toBe('N 0°');
  expect(heading(-90, en)).toBe('W 270°');
  expect(heading(null, en)).toBeNull();
});

it('speeds and rates', () => {
  expect(speed(1.2, en)).toBe('4.3 km/h');
  expect(bitrate(4_120_000)).toBe('4.1 Mbit/s');
});

it('an unknown word stays as it is, even one that objects have', () => {
  expect(named(en.kind, 'bodycam')).toBe('Body camera');
  expect(named(en.kind, 'constructor')).toBe('constructor');
});

it('the language follows the browser until somebody chose', () => {
  expect(preferredLanguage(null, ['zh-TW', 'en'])).toBe('zh');
  expect(preferredLanguage(null, ['fr'])).toBe('en');
  expect(preferredLanguage('en', ['zh-CN'])).toBe('en');
});
