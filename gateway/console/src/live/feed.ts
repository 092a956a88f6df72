// The feed's connection: open, resume, notice silence, come back. What the messages mean belongs to the store.

import { parseFeedMessage, type FeedMessage } from '../contract';
import { EVERYTHING, partParameters, type Part } from '../part';

/** An idle feed speaks every 10 s; two missed and half of a third mean that the line is dead. */
const SILENCE_MS_MAX = 25_000;
const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 15_000;
/** A line must have lived this long before its next fault counts as the first one. */
const STEADY_MS = 10_000;

export type FeedState = 'connecting' | 'live' | 'reconnecting' | 'closed';

export interface FeedSocket {
  /** After this, neither callback is called again. */
  close(): void;
}

/** What the feed needs of its surroundings; tests bring their own clock and line. */
export interface FeedLine {
  open(url: string, onText: (text: string) => void, onClose: () => void): FeedSocket;
  now(): number;
  after(ms: number, run: () => void): number;
  cancel(timer: number): void;
  random(): number;
}

export interface FeedUser {
  cursor(): { epoch: string; seq: number } | null;
  /** What of the picture is wanted. */
  part?(): Part;
  onMessage(message: FeedMessage): void;
  onState(state: FeedState): void;
  /** The line closed: a browser hides why, so the user asks whether the login still holds. */
  onLost(): void;
}

/** Exponential with full jitter, so that a wall of screens does not come back in one moment. */
export function backoffMs(failures: number, random: number): number {
  const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(failures, 10));
  return Math.round(BACKOFF_MS_MIN / 2 + random * ceiling);
}

export function feedUrl(base: string, cursor: { epoch: string; seq: number } | null, part: Part = EVERYTHING): string {
  const query = partParameters(part);
  if (cursor !== null) query.push(['since', `${cursor.epoch}-${cursor.seq}`]);
  const text = query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
  return text === '' ? base : `${base}?${text}`;
}

export class Feed {
  state: FeedState = 'closed';
  /** Local wallclock of the last message; null before the first. */
  lastMessageMs: number | null = null;

  private socket: FeedSocket | null = null;
  private failures = 0;
  private liveSinceMs = 0;
  private retryTimer: number | null = null;
  private silenceTimer: number | null = null;

  constructor(
    private readonly base: string,
    private readonly line: FeedLine,
    private readonly user: FeedUser,
  ) {}

  start(): void {
    if (this.state !== 'closed') return;
    this.setState('connecting');
    this.connect();
  }

  stop(): void {
    this.setState('closed');
    if (this.retryTimer !== null) this.line.cancel(this.retryTimer);
    this.retryTimer = null;
    this.dropSocket();
  }

  /** The network came back: no reason to wait for the timer. */
  hurry(): void {
    if (this.retryTimer === null) return;
    this.line.cancel(this.retryTimer);
    this.retryTimer = null;
    this.connect();
  }

  /** Another part is wanted: a line of its own, at once. */
  again(): void {
    if (this.state === 'closed') return;
    if (this.retryTimer !== null) this.line.cancel(this.retryTimer);
    this.dropSocket();
    this.setState('connecting');
    this.connect();
  }

  private connect(): void {
    this.retryTimer = null;
    this.socket = this.line.open(
      feedUrl(this.base, this.user.cursor(), this.user.part?.()),
      (text) => this.heard(text),
      () => this.lost(),
    );
    this.watchSilence();
  }

  private heard(text: string): void {
    const message = parseFeedMessage(text);
    if (message === null) return;
    this.lastMessageMs = this.line.now();
    this.watchSilence();
    if (this.state !== 'live') this.liveSinceMs = this.line.now();
    this.user.onMessage(message);
    this.setState('live');
  }

  private watchSilence(): void {
    if (this.silenceTimer !== null) this.line.cancel(this.silenceTimer);
    this.silenceTimer = this.line.after(SILENCE_MS_MAX, () => this.lost());
  }

  private lost(): void {
    this.dropSocket();
    if (this.state === 'closed') return;
    const steady = this.state === 'live' && this.line.now() - this.liveSinceMs >= STEADY_MS;
    this.failures = steady ? 0 : this.failures + 1;
    this.setState('reconnecting');
    this.retryTimer = this.line.after(backoffMs(this.failures, this.line.random()), () => this.connect());
    this.user.onLost();
  }

  private dropSocket(): void {
    if (this.silenceTimer !== null) this.line.cancel(this.silenceTimer);
    this.silenceTimer = null;
    this.socket?.close();
    this.socket = null;
  }

  private setState(state: FeedState): void {
    if (this.state === state) return;
    this.state = state;
    this.user.onState(state);
  }
}

/** The browser's own line. */
export const browserLine: FeedLine = {
  open: (url, onText, onClose) => {
    const socket = new WebSocket(url);
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (typeof data === 'string') onText(data);
    };
    socket.onclose = onClose;
    return {
      close: () => {
        socket.onmessage = null;
        socket.onclose = null;
        socket.close();
      },
    };
  },
  now: () => Date.now(),
  after: (ms, run) => window.setTimeout(run, ms),
  cancel: (timer) => window.clearTimeout(timer),
  random: () => Math.random(),
};
