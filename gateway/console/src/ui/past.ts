// The button that draws where the selected device was in the last hour.

import * as api from '../api';
import { bindAttribute, texts } from '../i18n';
import type { Context } from './context';
import { button, h, setAttribute, setText } from './dom';

const SPAN_MS = 3_600_000;
const POINTS_MAX = 10_000;

export class PastButton {
  readonly root: HTMLElement;

  private readonly press: HTMLButtonElement;
  private readonly note = h('span', { class: 'past-note', role: 'status' });
  private device: string | null = null;
  private isShown = false;

  constructor(private readonly context: Context) {
    this.press = button({ class: 'quiet small', 'data-testid': 'history', 'aria-pressed': 'false' }, (t) => t.panel.history, () => void this.toggle());
    bindAttribute(this.press, 'title', (t) => t.panel.historyHint);
    this.root = h('div', { class: 'past' }, this.press, this.note);
  }

  /** Another device, or none: what was drawn of the last one goes. */
  show(device: string | null): void {
    if (device === this.device) return;
    this.device = device;
    this.clear('');
  }

  private async toggle(): Promise<void> {
    const device = this.device;
    if (device === null) return;
    if (this.isShown) return this.clear('');
    this.press.disabled = true;
    try {
      const track = await api.pastTrack(device, this.context.now() - SPAN_MS, POINTS_MAX);
      if (device !== this.device) return;
      const points = track.geometry?.coordinates.length ?? 0;
      if (points === 0) return this.clear(texts().panel.historyNone);
      this.isShown = true;
      setAttribute(this.press, 'aria-pressed', 'true');
      setText(this.note, texts().panel.historyPoints(points, track.properties.has_more));
      this.context.showPast(track);
    } catch (fault) {
      if (device === this.device) this.clear(texts().panel.historyFailed(fault instanceof Error ? fault.message : String(fault)));
    } finally {
      this.press.disabled = false;
    }
  }

  private clear(note: string): void {
    setText(this.note, note);
    setAttribute(this.press, 'aria-pressed', 'false');
    if (this.isShown) this.context.showPast(null);
    this.isShown = false;
  }
}
