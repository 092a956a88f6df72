// What a device tells beside its position, as people read it. Pure.

import type { AlarmLevel, ClockDeviation, DeviceAlarm } from './contract';
import { named } from './format';
import type { Dictionary } from './i18n';

const RANK: Record<AlarmLevel, number> = { warning: 3, caution: 2, notice: 1 };

/** The worst level that deserves a sign; a notice does not. */
export function worstAlarm(alarms: readonly DeviceAlarm[] | undefined): 'caution' | 'warning' | null {
  let worst: 'caution' | 'warning' | null = null;
  for (const { level } of alarms ?? []) {
    if (level === 'warning') return 'warning';
    if (level === 'caution') worst = 'caution';
  }
  return worst;
}

/** Worst first. */
export function byLevel(alarms: readonly DeviceAlarm[]): DeviceAlarm[] {
  return [...alarms].sort((a, b) => (RANK[b.level] ?? 0) - (RANK[a.level] ?? 0));
}

/** Ends of property names that are units; the longest first. */
const UNITS: readonly [end: string, unit: string][] = [
  ['_0_to_5', '/ 5'], ['_0_to_3', '/ 3'], ['_kb_s', 'kB/s'], ['_mps', 'm/s'], ['_kmh', 'km/h'], ['_pct', '%'], ['_dbm', 'dBm'],
  ['_deg', '°'], ['_ppm', 'ppm'], ['_raw', ''], ['_hpa', 'hPa'], ['_km', 'km'], ['_kb', 'kB'], ['_mb', 'MB'], ['_gb', 'GB'],
  ['_mv', 'mV'], ['_ma', 'mA'], ['_ms', 'ms'], ['_hz', 'Hz'], ['_cm', 'cm'], ['_mm', 'mm'], ['_c', '°C'], ['_m', 'm'], ['_s', 's'],
  ['_v', 'V'], ['_a', 'A'],
];

export interface Told {
  name: string;
  value: string;
}

/** `wind_speed_mps` 3.5 → "wind speed", "3.5 m/s". The dictionary's name of a property goes before its own. */
export function property(name: string, value: number | string | boolean, t: Dictionary): Told {
  const [end, unit] = typeof value === 'number' ? (UNITS.find(([e]) => name.endsWith(e)) ?? ['', '']) : ['', ''];
  const plain = name.slice(0, name.length - end.length).replaceAll('_', ' ');
  const told = typeof value === 'boolean' ? (value ? t.panel.yes : t.panel.no) : typeof value === 'number' ? figures(value) : value;
  const gap = unit === '' || unit === '°' ? '' : ' ';
  return { name: Object.hasOwn(t.property, name) ? named(t.property, name) : plain, value: `${told}${gap}${unit}` };
}

/** "1.2 s slow ± 30 ms, drifts +12 ppm, 2 jumps" */
export function clockText(clock: ClockDeviation, t: Dictionary): string {
  const off = Math.abs(clock.behind_ms);
  const parts = [
    off <= clock.sigma_ms ? t.clock.right : clock.behind_ms > 0 ? t.clock.slow(lasting(off, t)) : t.clock.fast(lasting(off, t)),
  ];
  parts[0] += ` ± ${lasting(clock.sigma_ms, t)}`;
  if (clock.drift_ppm !== null) parts.push(t.clock.drift(`${clock.drift_ppm > 0 ? '+' : ''}${figures(clock.drift_ppm)}`));
  if (clock.jumps > 0) parts.push(t.clock.jumps(clock.jumps));
  return parts.join(' · ');
}

/** A span of milliseconds with the figures that matter. */
export function lasting(ms: number, t: Dictionary): string {
  if (ms < 1000) return t.unit.milliseconds(Math.round(ms));
  if (ms < 100_000) return t.unit.secondsText((ms / 1000).toFixed(1));
  if (ms < 6_000_000) return t.unit.minutes(Math.round(ms / 60_000));
  return t.unit.hours(Math.round(ms / 3_600_000));
}

/** At most three digits behind the point, none that say nothing. */
function figures(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toFixed(Math.abs(value) < 10 ? 2 : 1)));
}
