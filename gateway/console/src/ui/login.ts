// The door: a token in, a session cookie out. The token is never stored on the screen.

import { login, Refused } from '../api';
import { bindAttribute, bindText, switchLanguage, type Dictionary } from '../i18n';
import { button, h, label } from './dom';

export type LoginNote = 'ended' | 'unreachable' | null;
type Words = (t: Dictionary) => string;

export function loginPage(note: LoginNote, onDone: () => void): HTMLElement {
  let words: Words = (t) => (note === null ? '' : t.login[note]);
  const token = h('input', {
    type: 'password',
    id: 'token',
    autocomplete: 'current-password',
    spellcheck: 'false',
    'data-testid': 'login-token',
    'aria-describedby': 'token-hint',
  });
  const submit = label('button', { type: 'submit', class: 'primary', 'data-testid': 'login-submit' }, (t) => t.login.submit);
  const message = bindText(h('p', { class: 'login-message', role: 'alert', 'data-testid': 'login-message' }), (t) => words(t));
  const say = (next: Words) => {
    words = next;
    bindText(message, (t) => words(t));
  };
  const form = h(
    'form',
    { class: 'login-form' },
    label('h1', {}, (t) => t.login.title),
    label('label', { for: 'token' }, (t) => t.login.token),
    token,
    label('p', { class: 'hint', id: 'token-hint' }, (t) => t.login.hint),
    submit,
    message,
  );
  form.addEventListener('submit', (e) => {
    e.preventDefault();
    const value = token.value.trim();
    if (value === '') return say((t) => t.login.empty);
    submit.disabled = true;
    say((t) => t.login.busy);
    login(value)
      .then(onDone, (error: unknown) => say(loginFault(error)))
      .finally(() => (submit.disabled = false));
  });
  const language = button({ class: 'quiet', 'data-testid': 'lang-switch' }, (t) => t.top.switchLanguage, switchLanguage);
  bindAttribute(language, 'title', (t) => t.top.switchLanguageHint);
  queueMicrotask(() => token.focus());
  return h(
    'main',
    { class: 'login' },
    h(
      'div',
      { class: 'login-card' },
      h('div', { class: 'brand' }, h('img', { src: './icon.svg', alt: '', width: 34, height: 34 }), h('div', {}, label('strong', {}, (t) => t.product), label('span', {}, (t) => t.productSub))),
      form,
      language,
    ),
  );
}

export function loginFault(error: unknown): Words {
  if (!(error instanceof Refused)) return (t) => t.login.unreachable;
  if (error.status === 401) return (t) => t.login.wrong;
  return (t) => t.login.refused(error.message);
}
