// What every view of the screen is given.

import type { Store } from '../store';

export interface Context {
  store: Store;
  /** Names of cells and zones by id; the id itself where the grid has no name. */
  placeName(id: string): string;
  /** The gateway's wallclock, ms since 1970 UTC. */
  now(): number;
  /** Selects a device and brings it into view. */
  showDevice(id: string): void;
  flyTo(place: { lon: number; lat: number }): void;
}
