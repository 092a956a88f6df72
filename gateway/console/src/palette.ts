// The colours of style/base.css for what is drawn on a canvas: one source, read once.

import type { DeviceState } from './contract';

export interface Palette {
  ground: string;
  cellFill: string;
  cellLine: string;
  cellText: string;
  zone: string;
  restricted: string;
  view: string;
  caution: string;
  warning: string;
  text: string;
  halo: string;
  accent: string;
  sos: string;
  state: Record<DeviceState, string>;
}

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(name).trim();
  return {
    ground: read('--map-ground'),
    cellFill: read('--map-cell'),
    cellLine: read('--map-line'),
    cellText: read('--map-text'),
    zone: read('--zone'),
    restricted: read('--restricted'),
    view: read('--view'),
    caution: read('--minor'),
    warning: read('--major'),
    text: read('--text'),
    halo: read('--map-ground'),
    accent: read('--accent'),
    sos: read('--critical'),
    state: { live: read('--live'), stale: read('--stale'), coasting: read('--coasting'), lost: read('--lost'), silent: read('--silent') },
  };
}
