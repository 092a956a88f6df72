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

export interface Symbol {
  kind: string;
  state: DeviceState;
  sos: boolean;
  onAir: boolean;
}

/** The image's name; `drawSymbol` reads it back. */
export function symbolName(s: Symbol): string {
  return `device|${s.kind}|${s.state}|${s.sos ? 'sos' : ''}|${s.onAir ? 'air' : ''}`;
}

export function headingName(state: DeviceState, sos: boolean): string {
  return `heading|${sos ? 'sos' : state}`;
}

/** The image of a name made above, or null for any other name. */
export function drawNamed(name: string, palette: Palette): ImageData | null {
  const parts = name.split('|');
  if (parts[0] === 'device' && parts.length === 5) {
    const [, kind = '', state = 'silent', sos, air] = parts;
    return drawSymbol({ kind, state: state as DeviceState, sos: sos !== '', onAir: air !== '' }, palette);
  }
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
  if (symbol.state === 'lost' && !symbol.sos) c.setLineDash([3.5, 2.5]);
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
