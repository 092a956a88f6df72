import { describe, expect, it } from 'vitest';

import type { Stream } from '../contract';
import { en } from '../i18n/en';
import { zh } from '../i18n/zh';
import { hasAudio, obstacle, retryDelayMs, sentence, type VideoStatus } from './playback';

const stream = (over: Partial<Stream> = {}): Stream => ({
  stream: 'bc-01/main', device: 'bc-01', phase: 'live', protocol: 'rtsp', codecs: ['H264'], readers: 0, ...over,
});
const CHROMIUM = new Set(['H264', 'VP8', 'VP9', 'AV1', 'RTX']);

describe('obstacle', () => {
  it('lets a live, an idle and a waiting stream be tried', () => {
    for (const phase of ['live', 'idle', 'waiting'] as const) expect(obstacle(stream({ phase }), CHROMIUM)).toBeNull();
  });

  it('names the codec that the browser lacks', () => {
    expect(obstacle(stream({ codecs: ['H265', 'OPUS'] }), CHROMIUM)).toEqual({ state: 'unplayable', codec: 'H.265' });
    expect(obstacle(stream({ codecs: ['hevc'] }), new Set(['H265']))).toBeNull();
  });

  it('tries a stream whose codecs are not known yet', () => {
    expect(obstacle(stream({ codecs: [] }), CHROMIUM)).toBeNull();
    expect(obstacle(stream({ codecs: ['PCMA'] }), CHROMIUM)).toBeNull();
  });

  it('does not try without a publisher, a stream or WebRTC', () => {
    expect(obstacle(stream({ phase: 'lost' }), CHROMIUM)?.state).toBe('lost');
    expect(obstacle(null, CHROMIUM)?.state).toBe('none');
    expect(obstacle(stream(), null)?.state).toBe('no-webrtc');
  });
});

it('offers sound only where there is some', () => {
  expect(hasAudio(stream())).toBe(false);
  expect(hasAudio(stream({ codecs: ['H264', 'OPUS'] }))).toBe(true);
  expect(hasAudio(stream({ codecs: ['H265', 'mpeg4-generic'] }))).toBe(false);
});

describe('retry', () => {
  it('backs off within bounds and never insists on what cannot change', () => {
    expect(retryDelayMs({ why: 'broken' }, 1, 0)).toBeLessThan(retryDelayMs({ why: 'broken' }, 4, 0) ?? 0);
    expect(retryDelayMs({ why: 'unreachable' }, 99, 1)).toBeLessThanOrEqual(20_000);
    expect(retryDelayMs({ why: 'refused', status: 503, words: '' }, 1, 0.5)).not.toBeNull();
    expect(retryDelayMs({ why: 'refused', status: 406, words: '' }, 1, 0.5)).toBeNull();
  });
});

describe('sentence', () => {
  const statuses: VideoStatus[] = [
    { state: 'none' }, { state: 'connecting' }, { state: 'waking' }, { state: 'starting' },
    { state: 'stalled', seconds: 7 }, { state: 'waiting' }, { state: 'lost' }, { state: 'unplayable', codec: 'H.265' },
    { state: 'no-webrtc' }, { state: 'failed', end: { why: 'broken' }, retryAtMs: 5000 },
    { state: 'failed', end: { why: 'refused', status: 406, words: 'only H265' }, retryAtMs: null },
    { state: 'failed', end: { why: 'refused', status: 418, words: 'teapot' }, retryAtMs: null },
  ];

  it('says something for every state without a picture, in both languages', () => {
    for (const t of [en, zh]) for (const s of statuses) expect(sentence(s, 0, t)).not.toBe('');
    expect(sentence({ state: 'playing' }, 0, en)).toBe('');
  });

  it('passes on the gateway\'s reason and the time of the next try', () => {
    expect(sentence(statuses[10] as VideoStatus, 0, en)).toContain('only H265');
    expect(sentence(statuses[9] as VideoStatus, 1000, en)).toContain('4 s');
  });
});
