// How far an order came, for people. No page, no clock.

import type { Order } from './contract';

export interface Rung {
  state: string;
  note: string | null;
}

/** The rungs worth showing: "accepted" only while nothing followed it, and nothing that came too late. */
export function rungs(order: Order): Rung[] {
  const steps = order.steps.filter((s) => !s.late);
  const shown = steps.length > 1 ? steps.slice(1) : steps;
  return shown.map((s) => ({ state: s.state, note: s.note }));
}
