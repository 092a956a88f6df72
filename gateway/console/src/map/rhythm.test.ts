import { expect, it } from 'vitest';

import { Rhythm, type Clock } from './rhythm';

class Bench implements Clock {
  ms = 0;
  timers: { at: number; run: () => void; id: number }[] = [];
  private next = 1;
  now = () => this.ms;
  after(ms: number, run: () => void) {
    this.timers.push({ at: this.ms + ms, run, id: this.next });
    return this.next++;
  }
  cancel(timer: number) {
    this.timers = this.timers.filter((t) => t.id !== timer);
  }
  async until(ms: number) {
    for (;;) {
      const due = this.timers.filter((t) => t.at <= ms).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.cancel(due.id);
      this.ms = Math.max(this.ms, due.at);
      due.run();
      await settled();
    }
    this.ms = ms;
  }
}
const settled = async () => {
  for (let i = 0; i < 8; i++) await Promise.resolve();
};

it('many wishes are one draw, and the earliest counts', async () => {
  const bench = new Bench();
  const drawn: number[] = [];
  const rhythm = new Rhythm(() => Promise.resolve(drawn.push(bench.ms)), bench);
  rhythm.want(100);
  await bench.until(0);
  rhythm.want(1000);
  rhythm.want(100);
  rhythm.want(500);
  await bench.until(2000);
  expect(drawn).toEqual([0, 100]);
});

it('while a draw is under way another one waits, and for twice its cost', async () => {
  const bench = new Bench();
  const drawn: number[] = [];
  let done = () => {};
  const rhythm = new Rhythm(() => {
    drawn.push(bench.ms);
    return new Promise<void>((resolve) => (done = resolve));
  }, bench);
  rhythm.want(0);
  await bench.until(0);
  rhythm.want(100);
  await bench.until(400);
  expect(drawn).toEqual([0]);
  done();
  await settled();
  rhythm.want(100);
  await bench.until(410);
  expect(drawn).toEqual([0, 400]);
  done();
  await settled();
  expect(rhythm.costMs).toBe(10);
});

it('what is stopped draws no more', async () => {
  const bench = new Bench();
  let tries = 0;
  const rhythm = new Rhythm(() => {
    tries += 1;
    return Promise.resolve();
  }, bench);
  rhythm.want(0);
  await bench.until(0);
  rhythm.want(0);
  await bench.until(1);
  expect(tries).toBe(2);
  rhythm.want(50);
  rhythm.stop();
  await bench.until(500);
  expect(tries).toBe(2);
});
