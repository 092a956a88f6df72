import { describe, expect, it } from 'vitest';

import type { Device, EventItem, FeedMessage } from './contract';
import { parseFeedMessage } from './contract';
import { isOpen, Store } from './store';

const NOW = 1_795_219_200_000;

function device(id: string, lon: number, over: Partial<Device> = {}): Device {
  return {
    id, kind: 'bodycam', unit: null, model: null, mode: null, state: 'live', online: true,
    position: { lat: 37.69, lon, arrived_ms: NOW - 500, age_ms: 500 },
    cell: null, zones: [], battery_pct: null, sos: false, faults: {}, ...over,
  };
}

function event(n: number, states: ('pending' | 'delivered' | 'parked')[]): EventItem {
  return {
    id: `0190aaaa-0000-7000-8000-${String(n).padStart(12, '0')}`, kind: 'sos', rule: 'sos', severity: 'critical',
    priority: 'P0', device: 'bc-01', unit: null, raised_ms: NOW, device_time_ms: null, position: null,
    position_ms: null, cell: null, streams: [], note: null,
    deliveries: states.map((state, i) => ({ platform: `p${i}`, state, attempts: 1, error: null, updated_ms: NOW })),
  };
}

function message(type: 'snapshot' | 'change', seq: number, over: Partial<FeedMessage> = {}): FeedMessage {
  return { type, epoch: 'f3a1', seq, now_ms: NOW, devices: [], streams: [], events: [], gone: [], ...over };
}

const stream = (name: string, phase: 'live' | 'lost' = 'live') => ({
  stream: name, device: name.split('/')[0] as string, phase, protocol: 'rtsp', codecs: ['H264'], readers: 0,
});

describe('store', () => {
  it('a change moves one device and leaves the others', () => {
    const store = new Store();
    store.apply(message('snapshot', 1, { devices: [device('a', 112.1), device('b', 112.2)] }), NOW);
    store.apply(message('change', 2, { devices: [device('a', 112.15)] }), NOW);
    expect(store.devices.get('a')?.position?.lon).toBe(112.15);
    expect(store.devices.get('b')?.position?.lon).toBe(112.2);
    expect(store.cursor).toEqual({ epoch: 'f3a1', seq: 2 });
  });

  it('a snapshot forgets what it does not name', () => {
    const store = new Store();
    store.apply(message('snapshot', 1, { devices: [device('a', 112.1)], streams: [stream('a/main')], events: [event(1, [])] }), NOW);
    store.apply(message('snapshot', 9, { epoch: 'beef', devices: [device('b', 112.1)] }), NOW);
    expect([...store.devices.keys()]).toEqual(['b']);
    expect(store.streams.size + store.events.size).toBe(0);
    expect(store.cursor?.epoch).toBe('beef');
  });

  it('the trail comes from the snapshot, grows with changes and stays bounded', () => {
    const store = new Store();
    store.apply(message('snapshot', 1, { devices: [device('a', 112.1, { trail: [[112.0, 37.69]] })] }), NOW);
    for (let i = 0; i < 100; i++) store.apply(message('change', 2 + i, { devices: [device('a', 113 + i / 1000)] }), NOW);
    const trail = store.devices.get('a')?.trail ?? [];
    expect(trail).toHaveLength(60);
    expect(trail.at(-1)?.[0]).toBeCloseTo(113.099);
  });

  it('a device that stands still does not grow its trail', () => {
    const store = new Store();
    for (let i = 0; i < 5; i++) store.apply(message('change', i, { devices: [device('a', 112.1)] }), NOW);
    expect(store.devices.get('a')?.trail).toHaveLength(1);
  });

  it('ages run on the gateway clock, whatever this clock says', () => {
    const store = new Store();
    const local = NOW - 3_600_000; // this screen is an hour behind
    store.apply(message('snapshot', 1, { devices: [device('a', 112.1)] }), local);
    const fixMs = store.devices.get('a')?.fixMs ?? 0;
    expect(store.gatewayNow(local + 2000) - fixMs).toBe(2500);
  });

  it('the least delayed message sets the clock', () => {
    const store = new Store();
    store.apply(message('change', 1), NOW + 40);
    store.apply(message('change', 2), NOW + 900); // queued on its way
    expect(store.gatewayNow(NOW + 40)).toBe(NOW);
  });

  it('gone takes a device with its streams and the selection', () => {
    const store = new Store();
    store.apply(message('snapshot', 1, { devices: [device('a', 1), device('b', 1)], streams: [stream('a/main'), stream('b/main')] }), NOW);
    store.select('a');
    store.apply(message('change', 2, { gone: ['device:a', 'nonsense', 'device:unknown'] }), NOW);
    expect([...store.devices.keys()]).toEqual(['b']);
    expect([...store.streams.keys()]).toEqual(['b/main']);
    expect(store.selected).toBeNull();
  });

  it('events stand newest first and are counted until every platform has them', () => {
    const store = new Store();
    store.apply(message('snapshot', 1, { events: [event(1, ['delivered']), event(3, ['pending', 'parked']), event(2, [])] }), NOW);
    expect(store.eventsNewestFirst().map((e) => e.id.slice(-1))).toEqual(['3', '2', '1']);
    expect(store.counts()).toMatchObject({ open: 1, parked: 1 });
    store.apply(message('change', 2, { events: [event(3, ['delivered', 'delivered'])] }), NOW);
    expect(store.counts()).toMatchObject({ open: 0, parked: 0 });
    expect(isOpen(event(4, []))).toBe(false);
  });

  it('a person with two devices is counted once', () => {
    const store = new Store();
    const devices = [device('b', 1, { person: 'p' }), device('r', 1, { person: 'p', primary: false }), device('x', 1)];
    store.apply(message('snapshot', 1, { devices }), NOW);
    expect(store.counts()).toMatchObject({ devices: 2, online: 2, live: 2 });
    expect(store.devices.size).toBe(3);
  });

  it('another part begins anew, with the agencies that were seen', () => {
    const store = new Store();
    store.apply(message('snapshot', 1, { devices: [device('a', 1, { agency: 'traffic' })] }), NOW);
    expect(store.choose({ agency: 'traffic', kind: '', cell: '' })).toBe(true);
    expect(store.cursor).toBeNull();
    expect(store.devices.size).toBe(0);
    expect([...store.agencies]).toEqual(['traffic']);
    expect(store.choose({ agency: 'traffic', kind: '', cell: '' })).toBe(false);
  });

  it('the main camera is offered first', () => {
    const store = new Store();
    store.apply(message('snapshot', 1, { streams: [stream('a/aux'), stream('a/main'), stream('b/main')] }), NOW);
    expect(store.streamsOf('a').map((s) => s.stream)).toEqual(['a/main', 'a/aux']);
  });
});

describe('parseFeedMessage', () => {
  it.each(['', 'nonsense', 'null', '[]', '{"type":"hello"}', '{"type":"change","epoch":1,"seq":2,"now_ms":3}'])('refuses %s', (text) => {
    expect(parseFeedMessage(text)).toBeNull();
  });

  it('takes lists that are missing as empty', () => {
    expect(parseFeedMessage('{"type":"change","epoch":"a","seq":2,"now_ms":3}')).toEqual(message('change', 2, { epoch: 'a', now_ms: 3 }));
  });
});
