// Signs as strokes in a 24 × 24 box: the same lines are drawn on the map's symbols and in the lists.

const SVG = 'http://www.w3.org/2000/svg';

export const KIND_PATHS: Record<string, string> = {
  bodycam:
    'M8 3h8a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H8a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2zM12 7a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM9.5 17h5',
  drone:
    'M5.5 8.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM18.5 8.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM5.5 21.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM18.5 21.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM7.7 7.7l8.6 8.6M16.3 7.7l-8.6 8.6',
  dock: 'M4 4h16v16H4zM9 8.5v7M15 8.5v7M9 12h6',
  vehicle:
    'M3.5 17v-4l2.4-5.6A2 2 0 0 1 7.7 6.2h8.6a2 2 0 0 1 1.8 1.2l2.4 5.6v4zM3.5 13h17M6 17v2M18 17v2',
  terminal: 'M8 3h8a1.5 1.5 0 0 1 1.5 1.5v15A1.5 1.5 0 0 1 16 21H8a1.5 1.5 0 0 1-1.5-1.5v-15A1.5 1.5 0 0 1 8 3zM6.5 16.5h11',
  camera: 'M4 7h10a1.5 1.5 0 0 1 1.5 1.5v7A1.5 1.5 0 0 1 14 17H4a1.5 1.5 0 0 1-1.5-1.5v-7A1.5 1.5 0 0 1 4 7zM15.5 11l6-3v8l-6-3',
  sensor:
    'M12 10.8a1.2 1.2 0 1 0 0 2.4 1.2 1.2 0 0 0 0-2.4zM8.2 15.8a5.4 5.4 0 0 1 0-7.6M15.8 8.2a5.4 5.4 0 0 1 0 7.6M5.3 18.7a9.5 9.5 0 0 1 0-13.4M18.7 5.3a9.5 9.5 0 0 1 0 13.4',
  radio: 'M8.5 9H15a1.5 1.5 0 0 1 1.5 1.5v9A1.5 1.5 0 0 1 15 21H9a1.5 1.5 0 0 1-1.5-1.5v-9A1.5 1.5 0 0 1 8.5 9zM9.5 9V2.5M10.5 12.5h3',
  other: 'M12 3.5l7.5 4.3v8.4L12 20.5l-7.5-4.3V7.8zM12 11.5v1',
};

export const SIGN_PATHS = {
  close: 'M6 6l12 12M18 6L6 18',
  search: 'M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L21 21',
  locate: 'M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10zM12 2v4M12 18v4M2 12h4M18 12h4',
  fullscreen: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5',
  soundOff: 'M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM16 9.5l5 5M21 9.5l-5 5',
  soundOn: 'M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15.5 9a4.2 4.2 0 0 1 0 6M18 6.5a7.8 7.8 0 0 1 0 11',
  plus: 'M12 5v14M5 12h14',
  minus: 'M5 12h14',
  fit: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5M9 9h6v6H9z',
  alarm: 'M12 3.5L22 20.5H2zM12 10v5M12 17.8v.2',
  logout: 'M14 4h4.5A1.5 1.5 0 0 1 20 5.5v13a1.5 1.5 0 0 1-1.5 1.5H14M4 12h11M11 8l4 4-4 4',
} as const;

export function kindPath(kind: string): string {
  return KIND_PATHS[kind] ?? (KIND_PATHS['other'] as string);
}

export function kindIcon(kind: string): SVGSVGElement {
  return strokes(kindPath(kind));
}

export function sign(name: keyof typeof SIGN_PATHS): SVGSVGElement {
  return strokes(SIGN_PATHS[name]);
}

function strokes(path: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.classList.add('icon');
  const line = document.createElementNS(SVG, 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}
