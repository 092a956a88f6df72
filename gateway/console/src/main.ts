// From the address to the screen: token in the fragment, login page, or the screen itself.

import './style/index.css';
import type { Map as MapLibre } from 'maplibre-gl';

import * as api from './api';
import { startLanguage, bindText } from './i18n';
import type { Store } from './store';
import { loginFault, loginPage, type LoginNote } from './ui/login';
import { Screen } from './ui/screen';

declare global {
  interface Window {
    /** For tests and for the curious: to read, not to change. */
    kerbside?: { store: Store; map: MapLibre | null };
  }
}

const place = document.getElementById('app') as HTMLElement;
let screen: Screen | null = null;

/** Takes `#/token=…` out of the address, so that it stays neither in the history nor in view. */
function tokenFromAddress(): string | null {
  const match = /^#\/?token=(.+)$/.exec(location.hash);
  if (match === null) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return decodeURIComponent(match[1] as string).trim();
}

function showLogin(note: LoginNote): void {
  leaveScreen();
  place.replaceChildren(loginPage(note, () => void enter()));
}

async function enter(): Promise<void> {
  try {
    const me = await api.me();
    if (me === null) return showLogin(null);
    leaveScreen();
    const entered = new Screen(me, () => showLogin('ended'), () => showLogin(null));
    screen = entered;
    window.kerbside = { store: entered.store, map: null };
    place.replaceChildren(entered.root);
    entered.start();
  } catch {
    showLogin('unreachable');
  }
}

async function enterWith(token: string): Promise<void> {
  try {
    await api.login(token);
  } catch (error) {
    showLogin(null);
    const message = place.querySelector('[data-testid="login-message"]');
    if (message !== null) bindText(message, loginFault(error));
    return;
  }
  await enter();
}

function leaveScreen(): void {
  screen?.close();
  screen = null;
  delete window.kerbside;
}

function begin(): void {
  const token = tokenFromAddress();
  void (token === null ? enter() : enterWith(token));
}

startLanguage();
api.whenUnauthorized(() => {
  if (screen !== null) showLogin('ended');
});
window.addEventListener('hashchange', () => {
  if (/^#\/?token=/.test(location.hash)) begin();
});
begin();
