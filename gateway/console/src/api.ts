// Calls of the gateway's HTTP API. One place knows paths, headers and what a 401 means.

import type { FeatureCollection, Geometry } from 'geojson';

import type { EventItem, GridProperties, Me, Order, PastTrack } from './contract';

export type Grid = FeatureCollection<Geometry, GridProperties>;

/** The gateway's answer was no; `message` is its own plain words. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** The header the gateway asks of every changing request with a cookie: a foreign page cannot send it. */
export const FROM_SCREEN = { 'X-Kerbside': '1' } as const;

let onUnauthorized: () => void = () => {};

/** `run` is called for every 401 after login: the session ended or the user was revoked. */
export function whenUnauthorized(run: () => void): void {
  onUnauthorized = run;
}

export async function login(token: string): Promise<void> {
  const answer = await send('/api/v1/login', { method: 'POST', body: JSON.stringify({ token }) });
  if (!answer.ok) throw await refusal(answer);
}

export async function logout(): Promise<void> {
  await send('/api/v1/logout', { method: 'POST', body: '{}' });
}

/** Who is logged in, or null. */
export async function me(): Promise<Me | null> {
  const answer = await send('/api/v1/me');
  if (answer.status === 401) return null;
  if (!answer.ok) throw await refusal(answer);
  return (await answer.json()) as Me;
}

export async function grid(): Promise<Grid> {
  return (await authorized('/api/v1/grid')) as Grid;
}

export async function eventsBefore(id: string, limit: number): Promise<EventItem[]> {
  const query = new URLSearchParams({ limit: String(limit), before: id });
  const page = (await authorized(`/api/v1/events?${query}`)) as { events: EventItem[] };
  return page.events;
}

export async function retryDelivery(event: string, platform: string): Promise<void> {
  await authorized(`/api/v1/events/${encodeURIComponent(event)}/retry`, {
    method: 'POST',
    body: JSON.stringify({ platform }),
  });
}

/** Where a device was; at most `limit` points, the oldest first. */
export async function pastTrack(device: string, fromMs: number, limit: number): Promise<PastTrack> {
  const query = new URLSearchParams({ from: String(Math.round(fromMs)), limit: String(limit) });
  return (await authorized(`/api/v1/tracks/${encodeURIComponent(device)}?${query}`)) as PastTrack;
}

/** An order as it is asked for; gateway/API.md, "Orders". */
export type Asked =
  | { kind: 'message'; text: string }
  | { kind: 'live_start'; camera?: string }
  | { kind: 'live_stop'; camera: string };

export async function giveOrder(device: string, order: Asked): Promise<void> {
  await authorized(`/api/v1/devices/${encodeURIComponent(device)}/orders`, {
    method: 'POST',
    body: JSON.stringify(order),
  });
}

/** Newest first. */
export async function ordersOf(device: string, limit: number): Promise<Order[]> {
  const list = (await authorized(`/api/v1/devices/${encodeURIComponent(device)}/orders?limit=${limit}`)) as { orders: Order[] };
  return list.orders;
}

/** Reports a 401 met elsewhere (video). */
export function unauthorized(): void {
  onUnauthorized();
}

async function authorized(path: string, init?: RequestInit): Promise<unknown> {
  const answer = await send(path, init);
  if (answer.status === 401) onUnauthorized();
  if (!answer.ok) throw await refusal(answer);
  const text = await answer.text();
  return text === '' ? null : (JSON.parse(text) as unknown);
}

function send(path: string, init: RequestInit = {}): Promise<Response> {
  const headers: Record<string, string> = { ...FROM_SCREEN, Accept: 'application/json' };
  if (init.body !== undefined) headers['Content-Type'] = 'application/json';
  return fetch(path, { ...init, headers, credentials: 'same-origin', cache: 'no-store' });
}

/** The words of an error answer, `{"error": "..."}` or nothing usable. */
export async function refusal(answer: Response): Promise<Refused> {
  let words = '';
  try {
    const body = (await answer.json()) as { error?: unknown };
    if (typeof body.error === 'string') words = body.error;
  } catch {
    // A proxy's HTML page says nothing to an operator: the status has to do.
  }
  return new Refused(answer.status, words || `HTTP ${answer.status}`);
}
