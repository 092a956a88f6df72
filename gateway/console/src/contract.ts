// The gateway's JSON as gateway/API.md defines it. Nothing of the screen's own state belongs here.

export type DeviceState = 'live' | 'stale' | 'coasting' | 'lost' | 'silent';
export type StreamPhase = 'idle' | 'live' | 'waiting' | 'lost';
export type StreamHealth = 'ok' | 'no_frames' | 'frozen' | 'lossy' | 'clock_drift';
export type Severity = 'critical' | 'major' | 'minor' | 'notice';
export type DeliveryState = 'pending' | 'delivered' | 'parked';
export type Role = 'operator' | 'commander' | 'auditor' | 'admin';

export type LonLat = [lon: number, lat: number];

/** WGS-84 degrees, metres, m/s, degrees clockwise from true north. */
export interface Place {
  lat: number;
  lon: number;
  alt_m?: number | null;
  accuracy_m?: number | null;
  speed_mps?: number | null;
  heading_deg?: number | null;
}

/** How a marker moves on until its next fix: `speed_mps` fades with `coast_s`. */
export interface Motion {
  speed_mps: number;
  course_deg: number;
  coast_s: number;
}

/** A device's position: the best estimate, at `happened_ms`. `age_ms` holds at the `now_ms` of the message that brought it. */
export interface Position extends Place {
  /** Standard deviation on each axis, metres. */
  sigma_m?: number | null;
  motion?: Motion | null;
  /** The newest fix that was believed. */
  raw?: LonLat;
  happened_ms?: number;
  happened_sigma_ms?: number;
  time_ms?: number | null;
  arrived_ms: number;
  age_ms?: number | null;
  datum?: string | null;
  source_datum?: string | null;
}

export type AlarmLevel = 'notice' | 'caution' | 'warning';

export interface DeviceAlarm {
  code: string;
  level: AlarmLevel;
  text?: string | null;
}

/** How far a device's clock is from the gateway's. */
export interface ClockDeviation {
  behind_ms: number;
  sigma_ms: number;
  /** Positive: fast; null in the first minutes. */
  drift_ppm: number | null;
  jumps: number;
}

/** What a camera sees of the ground. */
export interface Footprint {
  /** Empty when only the centre is known. */
  polygon: LonLat[];
  centre: LonLat | null;
  sigma_m: number | null;
  /** It ends at 2 km or at the horizon. */
  is_cut: boolean;
}

export interface Device {
  id: string;
  /** One of the registry's kinds; a kind this screen does not know is shown as its text. */
  kind: string;
  unit: string | null;
  model: string | null;
  mode: string | null;
  state: DeviceState;
  online: boolean;
  agency?: string | null;
  person?: string | null;
  /** False: another device of the same person is shown and counted. */
  primary?: boolean;
  /** Said only to users with the grant. */
  restricted?: boolean;
  position: Position | null;
  clock?: ClockDeviation | null;
  cell: string | null;
  /** From the street to `cell`. */
  cells?: string[];
  zones: string[];
  battery_pct: number | null;
  sos: boolean;
  alarms?: DeviceAlarm[];
  properties?: Record<string, number | string | boolean>;
  video_delays?: { camera: string; delay_ms: number }[];
  footprint?: Footprint | null;
  faults: Record<string, number>;
  trail?: LonLat[];
}

export interface Stream {
  /** `{device}/{camera}` */
  stream: string;
  device: string;
  phase: StreamPhase;
  protocol: string | null;
  codecs: string[];
  readers: number;
  /** Null without a publisher. */
  health?: StreamHealth | null;
}

export interface Delivery {
  platform: string;
  state: DeliveryState;
  attempts: number;
  error: string | null;
  updated_ms: number;
}

export interface EventItem {
  /** UUIDv7: ids in order of text are in order of time. */
  id: string;
  kind: string;
  rule: string;
  severity: Severity;
  priority: string;
  device: string;
  unit: string | null;
  raised_ms: number;
  device_time_ms: number | null;
  position: Place | null;
  position_ms: number | null;
  cell: string | null;
  streams: string[];
  note: string | null;
  deliveries: Delivery[];
}

export interface OrderStep {
  state: string;
  at_ms: number;
  note: string | null;
  /** Said after the order's end. */
  late: boolean;
}

export interface Order {
  id: string;
  device: string;
  kind: string;
  by: string;
  given_ms: number;
  expires_ms: number;
  state: string;
  steps: OrderStep[];
  text?: string;
  camera?: string;
}

export interface FeedMessage {
  type: 'snapshot' | 'change';
  epoch: string;
  seq: number;
  now_ms: number;
  devices: Device[];
  streams: Stream[];
  events: EventItem[];
  /** `device:ID`, `stream:ID` or `event:ID` of items that are no more. */
  gone?: string[];
  /** Version of the grid in force. */
  grid?: string;
}

export interface Me {
  name: string;
  role: Role;
  box: string;
}

/** Properties of the features of `GET /api/v1/grid`. */
export interface GridProperties {
  /** street, community, grid, cell: units of the city's tree; zone, corridor: any other area. */
  type: 'street' | 'community' | 'grid' | 'cell' | 'zone' | 'corridor';
  id: string;
  name?: string | null;
  level?: string | number | null;
  parent?: string | null;
  /** Of zones: beat, restricted, temporary… */
  kind?: string | null;
  /** Of corridors, from side to side. */
  width_m?: number | null;
  /** Not the gateway's: its width in pixels at zoom 0. */
  width_z0?: number;
}

/** Answer of `GET /api/v1/tracks/{device}`; the lists run with the coordinates. */
export interface PastTrack {
  geometry: { coordinates: LonLat[] } | null;
  properties: {
    happened_ms: number[];
    back_filled: boolean[];
    has_more: boolean;
  };
}

/** A feed message, or null for text that is none: a screen must survive a gateway of another version. */
export function parseFeedMessage(text: string): FeedMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null) return null;
  const m = value as Partial<FeedMessage>;
  if (m.type !== 'snapshot' && m.type !== 'change') return null;
  if (typeof m.epoch !== 'string' || typeof m.seq !== 'number' || typeof m.now_ms !== 'number') return null;
  return {
    type: m.type,
    epoch: m.epoch,
    seq: m.seq,
    now_ms: m.now_ms,
    ...(typeof m.grid === 'string' ? { grid: m.grid } : {}),
    devices: Array.isArray(m.devices) ? m.devices : [],
    streams: Array.isArray(m.streams) ? m.streams : [],
    events: Array.isArray(m.events) ? m.events : [],
    gone: Array.isArray(m.gone) ? m.gone : [],
  };
}
