// The bar at the top: which box, how much, how fresh, who, which language.

import { logout } from '../api';
import type { FeedState } from '../live/feed';
import { clockTime, named } from '../format';
import { bindAttribute, switchLanguage, texts, type Dictionary } from '../i18n';
import type { Context } from './context';
import { button, h, iconButton, label, setAttribute, setText } from './dom';
import { sign } from './icons';

export class TopBar {
  readonly root: HTMLElement;

  private readonly box = h('span', { class: 'box-name', 'data-testid': 'box' });
  private readonly feedDot = h('span', { class: 'dot' });
  private readonly feedText = h('span', { class: 'feed-text' });
  private readonly feedAge = h('span', { class: 'feed-age' });
  private readonly feed = h('div', { class: 'feed', 'data-testid': 'feed-state', role: 'status' });
  private readonly time = h('time', { class: 'wallclock' });
  private readonly user = h('span', { class: 'user-name' });
  private readonly role = h('span', { class: 'user-role' });
  private readonly figures: Record<'devices' | 'online' | 'live' | 'streams' | 'open', Figure>;

  constructor(
    private readonly context: Context,
    onLogout: () => void,
  ) {
    this.figures = {
      devices: figure('devices', (t) => t.top.devices),
      online: figure('online', (t) => t.top.online),
      live: figure('live', (t) => t.top.live),
      streams: figure('streams', (t) => t.top.streams),
      open: figure('open', (t) => t.top.open),
    };
    bindAttribute(this.figures.open.root, 'title', (t) => t.top.openHint);
    bindAttribute(this.feed, 'title', (t) => t.feed.hint);
    this.feed.append(this.feedDot, this.feedText, this.feedAge);
    const language = button({ class: 'quiet', 'data-testid': 'lang-switch' }, (t) => t.top.switchLanguage, switchLanguage);
    bindAttribute(language, 'title', (t) => t.top.switchLanguageHint);
    this.root = h(
      'header',
      { class: 'topbar' },
      h('div', { class: 'brand' }, h('img', { src: './icon.svg', alt: '', width: 22, height: 22 }), label('strong', {}, (t) => t.product), this.box),
      h('div', { class: 'figures' }, ...Object.values(this.figures).map((f) => f.root)),
      h(
        'div',
        { class: 'topbar-end' },
        this.feed,
        this.time,
        language,
        h('div', { class: 'user' }, this.user, this.role),
        iconButton({ 'data-testid': 'logout' }, sign('logout'), (t) => t.top.logout, () => {
          logout().finally(onLogout);
        }),
      ),
    );
  }

  render(): void {
    const t = texts();
    const { store } = this.context;
    const counts = store.counts();
    setText(this.box, store.me?.box ?? '');
    setText(this.user, store.me?.name ?? '');
    setText(this.role, store.me === null ? '' : named(t.role, store.me.role));
    for (const key of ['devices', 'online', 'live', 'streams', 'open'] as const) {
      setText(this.figures[key].value, String(counts[key]));
    }
    this.figures.open.root.classList.toggle('warn', counts.parked > 0);
    setText(this.figures.open.note, counts.parked > 0 ? t.top.parked(counts.parked) : '');
  }

  renderClock(state: FeedState, lastMessageMs: number | null): void {
    const t = texts();
    const now = this.context.now();
    setText(this.time, clockTime(now, now));
    setAttribute(this.feed, 'data-state', state);
    setText(this.feedText, t.feed[state]);
    const age = lastMessageMs === null ? null : Math.floor((Date.now() - lastMessageMs) / 1000);
    setText(this.feedAge, age === null || age < 2 ? '' : t.feed.age(age));
  }
}

interface Figure {
  root: HTMLElement;
  value: HTMLElement;
  note: HTMLElement;
}

function figure(name: string, text: (t: Dictionary) => string): Figure {
  const value = h('span', { class: 'figure-value', 'data-testid': `count-${name}` });
  const note = h('span', { class: 'figure-note' });
  return { value, note, root: h('div', { class: `figure figure-${name}` }, value, label('span', { class: 'figure-name' }, text), note) };
}
