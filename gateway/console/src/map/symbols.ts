// The symbols of devices, drawn on canvas when the map first asks for them: no sprite is fetched.

import { kindPath } from '../ui/icons';
import type { DeviceState } from '../contract';
import type { Palette } from '../palette';

/** Images are drawn at twice their size so that they stay sharp on dense screens. */
export const SYMBOL_RATIO = 2;
/** Of a device's symbol, and of the wider image that holds the heading's wedge outside of it. */
const SIZE = 32;
const HEADING_SIZE = 48;
const RADIUS = 12.5;
const RING: Partial<Record<DeviceState, number[]>> = { coasting: [9, 3.6], lost: [2.2, 2.6] };

export interface Symbol {
  kind: string;
  state: DeviceState;
  sos: boolean;
  onAir: boolean;
  /** The worst of its own alarms that deserves a sign. */
  alarm: 'caution' | 'warning' | null;
  restricted: boolean;
}

/** The image's name; `drawNamed` reads it back. */
export function symbolName(s: Symbol): string {
  const marks = [s.sos ? 'sos' : '', s.onAir ? 'air' : '', s.alarm ?? '', s.restricted ? 'restricted' : ''];
  return ['device', s.kind, s.state, ...marks].join('|');
}

/** What a name made above means, or null for any other name. */
export function readSymbol(name: string): Symbol | null {
  const parts = name.split('|');
  if (parts[0] !== 'device' || parts.length !== 7) return null;
  const [, kind = '', state, sos, air, alarm, restricted] = parts;
  return {
    kind,
    state: state as DeviceState,
    sos: sos !== '',
    onAir: air !== '',
    alarm: alarm === 'caution' || alarm === 'warning' ? alarm : null,
    restricted: restricted !== '',
  };
}

export function headingName(state: DeviceState, sos: boolean): string {
  return `heading|${sos ? 'sos' : state}`;
}

/** The image of a name made above, or null for any other name. */
export function drawNamed(name: string, palette: Palette): ImageData | null {
  const symbol = readSymbol(name);
  if (symbol !== null) return drawSymbol(symbol, palette);
  const parts = name.split('|');
  if (parts[0] === 'heading') {
    const tone = parts[1] === 'sos' ? palette.sos : palette.state[parts[1] as DeviceState];
    return drawHeading(tone ?? palette.state.silent);
  }
  return null;
}

function drawSymbol(symbol: Symbol, palette: Palette): ImageData {
  const c = canvas(SIZE);
  const tone = symbol.sos ? palette.sos : (palette.state[symbol.state] ?? palette.state.silent);
  const filled = symbol.sos || symbol.state === 'live';
  const middle = SIZE / 2;

  c.beginPath();
  c.arc(middle, middle, RADIUS + 2, 0, 2 * Math.PI);
  c.fillStyle = palette.ground;
  c.fill();

  c.beginPath();
  c.arc(middle, middle, RADIUS - 0.5, 0, 2 * Math.PI);
  c.fillStyle = filled ? tone : palette.cellFill;
  c.fill();
  c.lineWidth = 2;
  c.strokeStyle = tone;
  // Form and colour say the same, so that either is enough: live is full, stale an empty ring, coasting a ring in pieces,
  // lost a dotted one that is struck out.
  if (!symbol.sos) c.setLineDash(RING[symbol.state] ?? []);
  c.stroke();
  c.setLineDash([]);

  const glyph = 15;
  c.save();
  c.translate(middle - glyph / 2, middle - glyph / 2);
  c.scale(glyph / 24, glyph / 24);
  c.lineWidth = 2.4;
  c.lineCap = 'round';
  c.lineJoin = 'round';
  c.strokeStyle = filled ? (symbol.sos ? '#ffffff' : palette.ground) : tone;
  c.stroke(new Path2D(kindPath(symbol.kind)));
  c.restore();

  if (symbol.state === 'lost' && !symbol.sos) {
    c.beginPath();
    c.moveTo(middle - 8.5, middle + 8.5);
    c.lineTo(middle + 8.5, middle - 8.5);
    c.lineWidth = 2;
    c.stroke();
  }
  if (symbol.alarm !== null) drawAlarm(c, middle + 9.5, middle + 8.5, palette[symbol.alarm], palette);
  if (symbol.restricted) drawLock(c, middle - 9.5, middle + 9, palette);

  if (symbol.onAir) {
    c.beginPath();
    c.arc(middle + 9.5, middle - 9.5, 4.6, 0, 2 * Math.PI);
    c.fillStyle = palette.ground;
    c.fill();
    c.beginPath();
    c.arc(middle + 9.5, middle - 9.5, 3.1, 0, 2 * Math.PI);
    c.fillStyle = palette.text;
    c.fill();
  }
  return pixels(c);
}

/** A small triangle: something is wrong with the device. */
function drawAlarm(c: CanvasRenderingContext2D, x: number, y: number, tone: string, palette: Palette): void {
  c.beginPath();
  c.moveTo(x, y - 5.2);
  c.lineTo(x + 5.4, y + 4.2);
  c.lineTo(x - 5.4, y + 4.2);
  c.closePath();
  c.lineJoin = 'round';
  c.lineWidth = 2.4;
  c.strokeStyle = palette.ground;
  c.stroke();
  c.fillStyle = tone;
  c.fill();
}

/** A small lock: seen only by users with the grant. */
function drawLock(c: CanvasRenderingContext2D, x: number, y: number, palette: Palette): void {
  c.fillStyle = palette.ground;
  c.fillRect(x - 5.2, y - 5.6, 10.4, 11);
  c.strokeStyle = palette.restricted;
  c.lineWidth = 1.5;
  c.beginPath();
  c.arc(x, y - 1, 2.3, Math.PI, 0);
  c.stroke();
  c.fillStyle = palette.restricted;
  c.fillRect(x - 3.6, y - 1, 7.2, 5);
}

/** A wedge on the rim that points north; the map turns it. */
function drawHeading(tone: string): ImageData {
  const c = canvas(HEADING_SIZE);
  const middle = HEADING_SIZE / 2;
  c.beginPath();
  c.moveTo(middle, 1);
  c.lineTo(middle + 7, 10.5);
  c.quadraticCurveTo(middle, 7, middle - 7, 10.5);
  c.closePath();
  c.fillStyle = tone;
  c.fill();
  return pixels(c);
}

function canvas(size: number): CanvasRenderingContext2D {
  const node = document.createElement('canvas');
  node.width = size * SYMBOL_RATIO;
  node.height = size * SYMBOL_RATIO;
  const context = node.getContext('2d', { willReadFrequently: true });
  if (context === null) throw new Error('this browser has no 2D canvas');
  context.scale(SYMBOL_RATIO, SYMBOL_RATIO);
  return context;
}

function pixels(c: CanvasRenderingContext2D): ImageData {
  return c.getImageData(0, 0, c.canvas.width, c.canvas.height);
}
