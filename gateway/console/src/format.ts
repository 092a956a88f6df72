// Values as people read them, in the chosen language. Pure.

import type { Place } from './contract';
import type { Dictionary } from './i18n';

/** "8 s", "3 min", "2 h", "4 d"; never negative. */
export function duration(ms: number, t: Dictionary): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 100) return t.unit.seconds(seconds);
  if (seconds < 6000) return t.unit.minutes(Math.floor(seconds / 60));
  if (seconds < 48 * 3600) return t.unit.hours(Math.floor(seconds / 3600));
  return t.unit.days(Math.floor(seconds / 86_400));
}

/** Time of day on this screen's clock face; with the date when it was another day. */
export function clockTime(ms: number, nowMs: number): string {
  const at = new Date(ms);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (at.toDateString() === new Date(nowMs).toDateString()) return time;
  return `${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

export function coordinates(place: Place): string {
  return `${place.lat.toFixed(5)}, ${place.lon.toFixed(5)}`;
}

export function metres(value: number | null | undefined, t: Dictionary): string | null {
  return value == null ? null : t.unit.metres(value < 10 ? value.toFixed(1) : value.toFixed(0));
}

export function speed(mps: number | null | undefined, t: Dictionary): string | null {
  if (mps == null) return null;
  const kmh = mps * 3.6;
  return t.unit.kmh(kmh < 10 ? kmh.toFixed(1) : kmh.toFixed(0));
}

/** "NE 47°" */
export function heading(degrees: number | null | undefined, t: Dictionary): string | null {
  if (degrees == null) return null;
  const turn = ((degrees % 360) + 360) % 360;
  return `${t.unit.wind[Math.round(turn / 45) % 8] ?? ''} ${Math.round(turn) % 360}°`;
}

export function bitrate(bitsPerSecond: number): string {
  if (bitsPerSecond >= 1e6) return `${(bitsPerSecond / 1e6).toFixed(1)} Mbit/s`;
  return `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}

/** A word of a closed list of the dictionary, or the word itself when the gateway knows more than this screen. */
export function named(names: Readonly<Record<string, string>>, word: string): string {
  return Object.hasOwn(names, word) ? (names[word] as string) : word;
}

function two(n: number): string {
  return String(n).padStart(2, '0');
}
