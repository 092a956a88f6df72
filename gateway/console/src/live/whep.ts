// One viewing of one stream by WHEP: offer, answer, tracks, statistics, end. When to try again, and what an operator
// is told, does not belong here.

import { FROM_SCREEN, refusal } from '../api';

export type WhepEnd =
  /** The gateway answered no. */
  | { why: 'refused'; status: number; words: string }
  /** The gateway did not answer. */
  | { why: 'unreachable' }
  /** The answer came, the media path did not, or it broke. */
  | { why: 'broken' };

export interface WhepUser {
  onConnected(): void;
  /** Called once; the session is closed by then. */
  onEnd(end: WhepEnd): void;
}

export interface VideoStats {
  width: number;
  height: number;
  framesPerSecond: number;
  framesDecoded: number;
  bytes: number;
  packetsLost: number;
  /** `performance.now()` of the sample. */
  atMs: number;
}

/** Host candidates are gathered at once; more than this only means that an interface is slow. */
const GATHERING_MS_MAX = 800;
const CONNECT_MS_MAX = 15_000;
/** ICE may recover from a lost path by itself. */
const DISCONNECTED_MS_MAX = 6_000;

export class WhepSession {
  readonly media = new MediaStream();

  private readonly pc = new RTCPeerConnection();
  private readonly abort = new AbortController();
  private location: string | null = null;
  private ended = false;
  private timer: number | null = null;

  constructor(
    /** `{device}/{camera}` */
    private readonly stream: string,
    private readonly user: WhepUser,
  ) {}

  async start(): Promise<void> {
    this.pc.addTransceiver('video', { direction: 'recvonly' });
    this.pc.addTransceiver('audio', { direction: 'recvonly' });
    this.pc.ontrack = ({ track }) => this.media.addTrack(track);
    this.pc.onconnectionstatechange = () => this.connectionChanged();
    try {
      await this.pc.setLocalDescription(await this.pc.createOffer());
      await this.gathered();
      if (this.ended) return;
      const answer = await fetch(whepPath(this.stream), {
        method: 'POST',
        headers: { ...FROM_SCREEN, 'Content-Type': 'application/sdp', Accept: 'application/sdp' },
        body: this.pc.localDescription?.sdp ?? '',
        credentials: 'same-origin',
        signal: this.abort.signal,
      });
      if (answer.status !== 201) {
        const { status, message } = await refusal(answer);
        return this.end({ why: 'refused', status, words: message });
      }
      const location = answer.headers.get('Location');
      if (location !== null) this.location = new URL(location, answer.url).href;
      const sdp = await answer.text();
      if (this.ended) return this.deleteSession();
      await this.pc.setRemoteDescription({ type: 'answer', sdp });
      this.deadline(CONNECT_MS_MAX);
    } catch (error) {
      if (this.ended) return;
      // fetch reports a dead line as TypeError; anything else is an answer that the browser cannot use.
      if (error instanceof TypeError) this.end({ why: 'unreachable' });
      else this.end({ why: 'refused', status: 201, words: error instanceof Error ? error.message : String(error) });
    }
  }

  /** The video's statistics, or null before the first packet. */
  async stats(): Promise<VideoStats | null> {
    if (this.ended) return null;
    for (const report of (await this.pc.getStats()).values()) {
      const r = report as RTCInboundRtpStreamStats;
      if (r.type !== 'inbound-rtp' || r.kind !== 'video') continue;
      return {
        width: r.frameWidth ?? 0,
        height: r.frameHeight ?? 0,
        framesPerSecond: r.framesPerSecond ?? 0,
        framesDecoded: r.framesDecoded ?? 0,
        bytes: r.bytesReceived ?? 0,
        packetsLost: Math.max(0, r.packetsLost ?? 0),
        atMs: performance.now(),
      };
    }
    return null;
  }

  /** Leaves the stream; the gateway frees the viewer's place at once. */
  close(): void {
    if (this.ended) return;
    this.ended = true;
    if (this.timer !== null) window.clearTimeout(this.timer);
    this.abort.abort();
    this.pc.onconnectionstatechange = null;
    this.pc.ontrack = null;
    this.pc.close();
    this.deleteSession();
  }

  /** The gateway's goodbye shows at the DTLS transport at once; the connection state follows many seconds later. */
  private watchGoodbye(): void {
    const transport = this.pc.getReceivers()[0]?.transport;
    if (!transport) return;
    transport.onstatechange = () => {
      if (transport.state === 'closed' && !this.ended) this.end({ why: 'broken' });
    };
  }

  private connectionChanged(): void {
    switch (this.pc.connectionState) {
      case 'connected':
        if (this.timer !== null) window.clearTimeout(this.timer);
        this.timer = null;
        this.watchGoodbye();
        this.user.onConnected();
        break;
      case 'disconnected':
        this.deadline(DISCONNECTED_MS_MAX);
        break;
      case 'failed':
      case 'closed':
        this.end({ why: 'broken' });
        break;
    }
  }

  private deadline(ms: number): void {
    if (this.timer !== null) window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.end({ why: 'broken' }), ms);
  }

  private end(end: WhepEnd): void {
    if (this.ended) return;
    this.close();
    this.user.onEnd(end);
  }

  private deleteSession(): void {
    if (this.location === null) return;
    const location = this.location;
    this.location = null;
    // Nobody waits for this answer: a session that is not deleted ends by itself when its consent runs out.
    fetch(location, { method: 'DELETE', headers: FROM_SCREEN, credentials: 'same-origin', keepalive: true }).catch(
      () => undefined,
    );
  }

  private gathered(): Promise<void> {
    if (this.pc.iceGatheringState === 'complete') return Promise.resolve();
    return new Promise((resolve) => {
      const timer = window.setTimeout(resolve, GATHERING_MS_MAX);
      this.pc.addEventListener('icegatheringstatechange', () => {
        if (this.pc.iceGatheringState !== 'complete') return;
        window.clearTimeout(timer);
        resolve();
      });
    });
  }
}

function whepPath(stream: string): string {
  return `/${stream.split('/').map(encodeURIComponent).join('/')}/whep`;
}
