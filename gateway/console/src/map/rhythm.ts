// When to draw: not more often than is seen, not while the last draw is under way, never more than a third of the time.
// What is drawn does not belong here.

export interface Clock {
  now(): number;
  after(ms: number, run: () => void): number;
  cancel(timer: number): void;
}

export class Rhythm {
  /** Milliseconds that the last draw took, the map's worker included. */
  costMs = 0;

  private startedMs = -Infinity;
  private dueMs: number | null = null;
  private drawing = false;
  private timer: number | null = null;

  constructor(
    private readonly draw: () => Promise<unknown>,
    private readonly clock: Clock,
  ) {}

  /** Draws when so long has passed since the last draw began; the earliest wish counts. */
  want(ms: number): void {
    const due = Math.max(this.clock.now(), this.startedMs + Math.max(ms, 2 * this.costMs));
    if (this.dueMs !== null && this.dueMs <= due) return;
    this.dueMs = due;
    this.arm();
  }

  stop(): void {
    this.dueMs = null;
    if (this.timer !== null) this.clock.cancel(this.timer);
    this.timer = null;
  }

  private arm(): void {
    if (this.drawing || this.dueMs === null) return;
    if (this.timer !== null) this.clock.cancel(this.timer);
    this.timer = this.clock.after(Math.max(0, this.dueMs - this.clock.now()), () => void this.run());
  }

  private async run(): Promise<void> {
    this.timer = null;
    this.dueMs = null;
    this.drawing = true;
    this.startedMs = this.clock.now();
    try {
      await this.draw();
    } finally {
      this.drawing = false;
      this.costMs = this.clock.now() - this.startedMs;
      this.arm();
    }
  }
}

export const browserClock: Clock = {
  now: () => performance.now(),
  after: (ms, run) => window.setTimeout(run, ms),
  cancel: (timer) => window.clearTimeout(timer),
};
