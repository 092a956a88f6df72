// What every view of the screen is given.

import type { PastTrack } from '../contract';
import type { CellEntry } from '../map/cells';
import type { Part } from '../part';
import type { Store } from '../store';

export interface Context {
  store: Store;
  /** Names of cells and zones by id; the id itself where the grid has no name. */
  placeName(id: string): string;
  /** Cells of the grid as a tree, parents before their children; empty until the grid is there. */
  cells(): readonly CellEntry[];
  /** Asks the gateway for this part of the picture alone. */
  choose(part: Part): void;
  /** Draws a past track; null takes it away. */
  showPast(track: PastTrack | null): void;
  /** The gateway's wallclock, ms since 1970 UTC. */
  now(): number;
  /** Selects a device and brings it into view. */
  showDevice(id: string): void;
  flyTo(place: { lon: number; lat: number }): void;
}
