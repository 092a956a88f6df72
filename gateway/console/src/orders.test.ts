import { expect, it } from 'vitest';

import type { Order } from './contract';
import { en } from './i18n/en';
import { zh } from './i18n/zh';
import { rungs } from './orders';

function order(...states: [string, string | null, boolean][]): Order {
  const steps = states.map(([state, note, late], i) => ({ state, note, late, at_ms: i }));
  return { id: 'x', device: 'bc-01', kind: 'message', by: 'eve', given_ms: 0, expires_ms: 1, state: 'sent', steps } as Order;
}

it('the ladder shows what followed, and why', () => {
  expect(rungs(order(['accepted', null, false])).map((r) => r.state)).toEqual(['accepted']);
  const refused = rungs(order(['accepted', null, false], ['sent', null, false], ['refused', '513003', false], ['read', null, true]));
  expect(refused).toEqual([
    { state: 'sent', note: null },
    { state: 'refused', note: '513003' },
  ]);
});

it('every state and kind has its word in both languages', () => {
  for (const t of [en, zh]) {
    expect(Object.keys(t.orders.state)).toEqual(['accepted', 'waiting', 'sent', 'delivered', 'read', 'refused', 'expired']);
    expect(Object.keys(t.orders.kind)).toEqual(['message', 'dispatch', 'live_start', 'live_stop', 'report_interval']);
  }
});
