// The grid's cells as a tree to choose from. Pure.

import type { Grid } from '../api';
import type { GridProperties } from '../contract';

export interface CellEntry {
  id: string;
  depth: number;
}

/** More than a drop-down can offer: of a larger grid the finest cells are left out. */
const ENTRIES_MAX = 1500;

/** Parents before their children, in the order of their ids; a cell whose parent is not there stands at the top. */
export function cellTree(grid: Grid): CellEntry[] {
  const cells = grid.features.map((f) => f.properties).filter((p): p is GridProperties => p !== null && p.type !== 'zone' && p.type !== 'corridor');
  const known = new Set(cells.map((c) => c.id));
  const below = new Map<string, GridProperties[]>();
  for (const cell of cells) {
    const parent = cell.parent != null && known.has(cell.parent) ? cell.parent : '';
    below.set(parent, [...(below.get(parent) ?? []), cell]);
  }
  const entries: CellEntry[] = [];
  const walk = (parent: string, depth: number): void => {
    // A grid that goes round in a circle is refused by the gateway; this only never hangs on one.
    const children = below.get(parent) ?? [];
    below.delete(parent);
    for (const { id } of children.sort((a, b) => (a.id < b.id ? -1 : 1))) {
      entries.push({ id, depth });
      walk(id, depth + 1);
    }
  };
  walk('', 0);
  if (entries.length <= ENTRIES_MAX) return entries;
  const finest = Math.max(...entries.map((e) => e.depth));
  return entries.filter((e) => e.depth < finest).slice(0, ENTRIES_MAX);
}
