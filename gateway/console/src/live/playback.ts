// What may be played, when to try again and what to tell the operator about it. Pure.

import type { Stream } from '../contract';
import type { Dictionary } from '../i18n';
import type { WhepEnd } from './whep';

export type VideoStatus =
  | { state: 'none' }
  | { state: 'connecting' }
  | { state: 'waking' }
  | { state: 'starting' }
  | { state: 'playing' }
  | { state: 'stalled'; seconds: number }
  | { state: 'waiting' }
  | { state: 'lost' }
  | { state: 'unplayable'; codec: string }
  | { state: 'no-webrtc' }
  | { state: 'failed'; end: WhepEnd; retryAtMs: number | null };

/** How codecs of a stream are called in a browser's list, and which of them are video. */
const VIDEO_CODECS: Record<string, string> = {
  H264: 'H264',
  AVC: 'H264',
  H265: 'H265',
  HEVC: 'H265',
  VP8: 'VP8',
  VP9: 'VP9',
  AV1: 'AV1',
  JPEG: 'JPEG',
  MJPEG: 'JPEG',
};
const CODEC_WORDS: Record<string, string> = { H264: 'H.264', H265: 'H.265', JPEG: 'Motion JPEG' };

/** Why this stream cannot be played right now, or null when it is worth a try. */
export function obstacle(stream: Stream | null, playable: ReadonlySet<string> | null): VideoStatus | null {
  if (stream === null) return { state: 'none' };
  if (playable === null) return { state: 'no-webrtc' };
  const codec = unplayableCodec(stream.codecs, playable);
  if (codec !== null) return { state: 'unplayable', codec };
  if (stream.phase === 'lost') return { state: 'lost' };
  return null;
}

/** The video codec that stands in the way: set only when the stream has video and none of it can be decoded. */
function unplayableCodec(codecs: readonly string[], playable: ReadonlySet<string>): string | null {
  const video = codecs.map((c) => VIDEO_CODECS[c.toUpperCase().replace('.', '')]).filter((c) => c !== undefined);
  if (video.length === 0 || video.some((c) => playable.has(c))) return null;
  return CODEC_WORDS[video[0] as string] ?? (video[0] as string);
}

/** Sound that comes by WebRTC; AAC goes to RTSP players only. */
const AUDIO_CODECS = new Set(['OPUS', 'PCMA', 'PCMU']);

export function hasAudio(stream: Stream): boolean {
  return stream.codecs.some((c) => AUDIO_CODECS.has(c.toUpperCase()));
}

/** Names of the video codecs this browser receives by WebRTC; null without WebRTC. */
export function playableCodecs(): ReadonlySet<string> | null {
  if (typeof RTCPeerConnection === 'undefined') return null;
  const codecs = RTCRtpReceiver.getCapabilities('video')?.codecs ?? [];
  return new Set(codecs.map((c) => c.mimeType.slice('video/'.length).toUpperCase()));
}

/** Until the next try after the nth failure in a row, ms; null: only when the operator asks. */
export function retryDelayMs(end: WhepEnd, failures: number, random: number): number | null {
  if (end.why === 'refused' && [201, 400, 403, 406, 415].includes(end.status)) return null;
  const ceiling = Math.min(20_000, 1000 * 2 ** Math.min(failures, 6));
  return Math.round(ceiling / 2 + (random * ceiling) / 2);
}

/** The sentence for the operator; empty while the picture speaks for itself. */
export function sentence(status: VideoStatus, nowMs: number, t: Dictionary): string {
  const v = t.video;
  switch (status.state) {
    case 'none':
      return v.noStream;
    case 'connecting':
      return v.connecting;
    case 'waking':
      return v.waking;
    case 'starting':
      return v.starting;
    case 'playing':
      return '';
    case 'stalled':
      return v.stalled(status.seconds);
    case 'waiting':
      return v.waiting;
    case 'lost':
      return v.lost;
    case 'unplayable':
      return v.codec(status.codec);
    case 'no-webrtc':
      return v.noWebrtc;
    case 'failed': {
      const again =
        status.retryAtMs === null ? '' : ` ${v.again(Math.max(0, Math.ceil((status.retryAtMs - nowMs) / 1000)))}`;
      return reason(status.end, t) + again;
    }
  }
}

function reason(end: WhepEnd, t: Dictionary): string {
  const v = t.video;
  if (end.why === 'unreachable') return v.unreachable;
  if (end.why === 'broken') return v.broken;
  switch (end.status) {
    case 404:
      return v.notFound;
    case 403:
      return v.forbidden;
    case 429:
    case 503:
      return v.busy;
    case 406:
    case 415:
      return v.media(end.words);
    default:
      return v.refused(end.words);
  }
}
