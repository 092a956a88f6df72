// The video tile: plays one stream of the selected device, and says in a sentence why it does not.

import { unauthorized } from '../api';
import type { Stream } from '../contract';
import { bitrate } from '../format';
import { bindAttribute, texts } from '../i18n';
import { hasAudio, obstacle, playableCodecs, retryDelayMs, sentence, type VideoStatus } from '../live/playback';
import { WhepSession, type VideoStats, type WhepEnd } from '../live/whep';
import { button, h, iconButton, setAttribute, setText } from './dom';
import { sign } from './icons';

/** No new frame for this long is worth a word. */
const STALLED_MS = 4000;

export class VideoTile {
  readonly root: HTMLElement;

  private readonly video = h('video', { 'data-testid': 'video', autoplay: true, playsinline: true, tabindex: 0 });
  private readonly words = h('p', { class: 'video-words' });
  private readonly overlay = h('div', { class: 'video-status', 'data-testid': 'video-status', role: 'status' });
  private readonly retryButton: HTMLButtonElement;
  private readonly muteButton: HTMLButtonElement;
  private readonly statsLine = h('span', { class: 'video-stats', 'data-testid': 'video-stats' });
  private readonly readers = h('span', { class: 'video-readers' });

  private readonly playable = playableCodecs();
  private stream: Stream | null = null;
  private session: WhepSession | null = null;
  private status: VideoStatus = { state: 'none' };
  private failures = 0;
  private retryTimer: number | null = null;
  private sample: VideoStats | null = null;
  private lastFrameMs = 0;

  constructor() {
    this.video.muted = true;
    bindAttribute(this.video, 'aria-label', (t) => t.phase.live);
    this.retryButton = button({ class: 'quiet' }, (t) => t.video.retryNow, () => this.retryNow());
    this.overlay.append(this.words);
    this.muteButton = iconButton({ class: 'small' }, sign('soundOff'), (t) => t.video.unmute, () => this.toggleSound());
    const full = iconButton({ class: 'small' }, sign('fullscreen'), (t) => t.video.fullscreen, () => {
      // Refused only where a site policy forbids it; the tile stays as it is then.
      this.root.requestFullscreen().catch(() => undefined);
    });
    this.root = h(
      'div',
      { class: 'video-tile' },
      this.video,
      this.overlay,
      h('div', { class: 'video-bar' }, this.statsLine, this.readers, this.muteButton, full),
    );
    this.draw();
  }

  /** Shows `stream`, which may be the same one in a new phase. */
  show(stream: Stream | null): void {
    const before = this.stream;
    this.stream = stream;
    if (before?.stream !== stream?.stream) {
      this.stop();
      this.failures = 0;
      this.begin();
    } else if (stream !== null && before !== null && (before.phase !== stream.phase || codecsDiffer(before, stream))) {
      this.phaseChanged();
    }
    this.draw();
  }

  /** Once a second: statistics, stalls, and the seconds in sentences. */
  tick(): void {
    const session = this.session;
    if (session === null) return this.draw();
    void session.stats().then((sample) => {
      if (this.session === session) this.measure(sample);
    });
  }

  close(): void {
    this.stream = null;
    this.stop();
  }

  private begin(): void {
    const hindrance = obstacle(this.stream, this.playable);
    if (hindrance !== null || this.stream === null) return this.setStatus(hindrance ?? { state: 'none' });
    this.setStatus({ state: this.stream.phase === 'idle' ? 'waking' : 'connecting' });
    const session = new WhepSession(this.stream.stream, {
      onConnected: () => {
        if (this.status.state !== 'playing') this.setStatus({ state: 'starting' });
      },
      onEnd: (end) => this.ended(end),
    });
    this.session = session;
    this.video.srcObject = session.media;
    void session.start();
  }

  private ended(end: WhepEnd): void {
    this.session = null;
    this.sample = null;
    if (end.why === 'refused' && end.status === 401) return unauthorized();
    this.failures++;
    const delay = retryDelayMs(end, this.failures, Math.random());
    const hindrance = obstacle(this.stream, this.playable);
    if (hindrance !== null) return this.setStatus(hindrance);
    if (delay !== null) this.retryTimer = window.setTimeout(() => this.retry(), delay);
    this.setStatus({ state: 'failed', end, retryAtMs: delay === null ? null : Date.now() + delay });
  }

  private retryNow(): void {
    this.failures = 0;
    this.retry();
  }

  private retry(): void {
    this.stop();
    this.begin();
  }

  private phaseChanged(): void {
    const hindrance = obstacle(this.stream, this.playable);
    if (hindrance !== null) {
      this.stop();
      this.setStatus(hindrance);
    } else if (this.session === null) {
      this.failures = 0;
      this.retry();
    }
  }

  private stop(): void {
    if (this.retryTimer !== null) window.clearTimeout(this.retryTimer);
    this.retryTimer = null;
    this.session?.close();
    this.session = null;
    this.sample = null;
    this.video.srcObject = null;
  }

  private measure(sample: VideoStats | null): void {
    if (sample === null) return this.draw();
    const before = this.sample;
    this.sample = sample;
    if (sample.framesDecoded > (before?.framesDecoded ?? 0)) {
      this.lastFrameMs = sample.atMs;
      this.failures = 0;
      this.setStatus({ state: 'playing' });
    } else if (this.status.state === 'playing' || this.status.state === 'stalled') {
      const quietMs = sample.atMs - this.lastFrameMs;
      if (quietMs > STALLED_MS) this.setStatus({ state: 'stalled', seconds: Math.floor(quietMs / 1000) });
    }
    const rate =
      before === null ? null : bitrate(((sample.bytes - before.bytes) * 8000) / Math.max(1, sample.atMs - before.atMs));
    const t = texts();
    const parts = sample.width === 0 ? [] : [`${sample.width}×${sample.height}`, `${sample.framesPerSecond} fps`];
    if (rate !== null) parts.push(rate);
    if (sample.packetsLost > 0) parts.push(t.video.lostPackets(sample.packetsLost));
    setText(this.statsLine, parts.join(' · '));
    this.draw();
  }

  private setStatus(status: VideoStatus): void {
    this.status = status;
    this.draw();
  }

  private draw(): void {
    const t = texts();
    // A stream that waits for its publisher keeps its viewers: the session is up, the picture stands still.
    const waits = this.stream?.phase === 'waiting' && this.session !== null;
    const status: VideoStatus = waits ? { state: 'waiting' } : this.status;
    setAttribute(this.overlay, 'data-state', status.state);
    setText(this.words, sentence(status, Date.now(), t));
    if (status.state !== 'failed') this.retryButton.remove();
    else if (!this.retryButton.isConnected) this.overlay.append(this.retryButton);
    if (this.session === null) setText(this.statsLine, '');
    const readers = this.stream?.readers ?? 0;
    const health = this.stream?.health ?? 'ok';
    const notes = health === 'ok' ? [] : [t.health[health]];
    if (readers > 0) notes.push(t.video.readers(readers));
    setText(this.readers, notes.join(' · '));
    this.muteButton.hidden = this.stream === null || !hasAudio(this.stream);
    this.root.classList.toggle('empty', this.stream === null);
  }

  private toggleSound(): void {
    this.video.muted = !this.video.muted;
    this.muteButton.replaceChildren(sign(this.video.muted ? 'soundOff' : 'soundOn'));
    const name = this.video.muted ? texts().video.unmute : texts().video.mute;
    this.muteButton.setAttribute('aria-label', name);
    this.muteButton.title = name;
  }
}

function codecsDiffer(a: Stream, b: Stream): boolean {
  return a.codecs.join() !== b.codecs.join();
}
