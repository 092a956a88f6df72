import { beforeEach, describe, expect, it } from 'vitest';

import { backoffMs, Feed, feedUrl, type FeedLine, type FeedState } from './feed';

/** A line and a clock that the test owns. */
class Bench implements FeedLine {
  opened: { url: string; text: (t: string) => void; close: () => void; alive: boolean }[] = [];
  clockMs = 0;
  private timers = new Map<number, { at: number; run: () => void }>();
  private nextTimer = 1;

  open(url: string, onText: (t: string) => void, onClose: () => void) {
    const socket = { url, text: onText, close: onClose, alive: true };
    this.opened.push(socket);
    return { close: () => (socket.alive = false) };
  }
  now = () => this.clockMs;
  random = () => 0.5;
  after(ms: number, run: () => void) {
    this.timers.set(this.nextTimer, { at: this.clockMs + ms, run });
    return this.nextTimer++;
  }
  cancel(timer: number) {
    this.timers.delete(timer);
  }
  advance(ms: number) {
    const until = this.clockMs + ms;
    for (;;) {
      const due = [...this.timers].filter(([, t]) => t.at <= until).sort((a, b) => a[1].at - b[1].at)[0];
      if (due === undefined) break;
      this.timers.delete(due[0]);
      this.clockMs = due[1].at;
      due[1].run();
    }
    this.clockMs = until;
  }
  get last() {
    return this.opened.at(-1) as (typeof this.opened)[number];
  }
}

const change = (seq: number) => JSON.stringify({ type: 'change', epoch: 'f3a1', seq, now_ms: 0, devices: [], streams: [], events: [] });

describe('feed', () => {
  let bench: Bench;
  let cursor: { epoch: string; seq: number } | null;
  let states: FeedState[];
  let lost: number;
  let feed: Feed;

  beforeEach(() => {
    bench = new Bench();
    cursor = null;
    states = [];
    lost = 0;
    feed = new Feed('ws://box/api/v1/feed', bench, {
      cursor: () => cursor,
      onMessage: (m) => (cursor = { epoch: m.epoch, seq: m.seq }),
      onState: (s) => states.push(s),
      onLost: () => lost++,
    });
    feed.start();
  });

  it('resumes where it stood', () => {
    expect(bench.last.url).toBe('ws://box/api/v1/feed');
    bench.last.text(change(815));
    bench.last.close();
    expect(lost).toBe(1);
    bench.advance(15_000);
    expect(bench.opened).toHaveLength(2);
    expect(bench.last.url).toBe('ws://box/api/v1/feed?since=f3a1-815');
    bench.last.text(change(816));
    expect(states).toEqual(['connecting', 'live', 'reconnecting', 'live']);
  });

  it('takes a silent line for dead and drops it', () => {
    bench.last.text(change(1));
    const first = bench.last;
    bench.advance(24_000);
    expect(feed.state).toBe('live');
    bench.advance(2_000);
    expect(first.alive).toBe(false);
    expect(feed.state).toBe('reconnecting');
  });

  it('a line that never answers is given up too', () => {
    bench.advance(60_000);
    expect(bench.opened.length).toBeGreaterThan(1);
    expect(bench.opened.slice(0, -1).every((s) => !s.alive)).toBe(true);
  });

  it('does not hammer a gateway that is away, and hurries when the network returns', () => {
    for (let i = 0; i < 8; i++) {
      bench.last.close();
      bench.advance(20_000);
    }
    const before = bench.opened.length;
    bench.last.close();
    bench.advance(1_000);
    expect(bench.opened).toHaveLength(before);
    feed.hurry();
    expect(bench.opened).toHaveLength(before + 1);
  });

  it('a line that opens and breaks at once still backs off', () => {
    for (let i = 0; i < 6; i++) {
      bench.last.text(change(i));
      bench.last.close();
      if (i < 5) bench.advance(20_000);
    }
    const before = bench.opened.length;
    bench.advance(5_000);
    expect(bench.opened).toHaveLength(before);
  });

  it('stops for good', () => {
    bench.last.text(change(1));
    feed.stop();
    bench.advance(120_000);
    expect(bench.opened).toHaveLength(1);
    expect(bench.last.alive).toBe(false);
    expect(states.at(-1)).toBe('closed');
  });

  it('ignores what is no message', () => {
    bench.last.text('hello');
    expect(feed.state).toBe('connecting');
  });
});

describe('backoff', () => {
  it('grows, is jittered and bounded', () => {
    expect(backoffMs(1, 1)).toBeGreaterThan(backoffMs(0, 1));
    expect(backoffMs(50, 1)).toBeLessThanOrEqual(15_250);
    expect(backoffMs(50, 0)).toBeGreaterThan(0);
  });

  it('escapes the cursor', () => {
    expect(feedUrl('ws://b/f', { epoch: 'a b&', seq: 1 })).toBe('ws://b/f?since=a%20b%26-1');
  });
});

describe('a part of the picture', () => {
  const part = { agency: '城管', kind: 'bodycam', cell: '' };

  it('is asked for by the feed\'s own parameters, with what to resume from', () => {
    expect(feedUrl('ws://x/feed', null, part)).toBe('ws://x/feed?agency=%E5%9F%8E%E7%AE%A1&kind=bodycam');
    expect(feedUrl('ws://x/feed', { epoch: 'f3a1', seq: 7 }, part)).toMatch(/&since=f3a1-7$/);
    expect(feedUrl('ws://x/feed', null)).toBe('ws://x/feed');
  });

  it('another part opens a line of its own and leaves the old one', () => {
    const bench = new Bench();
    let wanted = { agency: '', kind: '', cell: '' };
    const feed = new Feed('ws://x/feed', bench, {
      cursor: () => null,
      part: () => wanted,
      onMessage: () => {},
      onState: () => {},
      onLost: () => {},
    });
    feed.start();
    const first = bench.last;
    first.text(change(1));
    wanted = part;
    feed.again();
    expect(first.alive).toBe(false);
    expect(bench.opened).toHaveLength(2);
    expect(bench.last.url).toContain('kind=bodycam');
    expect(feed.state).toBe('connecting');
    bench.last.text(change(1));
    expect(feed.state).toBe('live');
  });
});
