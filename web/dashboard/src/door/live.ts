/**
 * The live line: one WebSocket over which the node says what changed. Nothing is polled; after a cut everything that is shown
 * is fetched again, so nothing is missed.
 *
 * ```text
 * connecting ──watching──▶ live ──closed──▶ cut ──back-off──▶ connecting
 *                            └──4401──▶ over (sign in again)
 * ```
 */
import { signal } from '@preact/signals';
import { waitBefore } from '../pure/backoff.js';
import { at, Refusal, tokenFor } from './call.js';

/** How the line stands. */
export type LineState = 'connecting' | 'live' | 'cut' | 'over';

/** How the line stands now. */
export const line = signal<LineState>('connecting');
/** How often the line was lost since the page was opened. */
export const cuts = signal(0);

type Listener = (topics: ReadonlySet<string> | 'all') => void;

const listeners = new Set<Listener>();
/** The door closes with it when the sign-in is over. */
const SIGN_IN_OVER = 4401;

let socket: WebSocket | null = null;
let attempt = 0;
let timer: ReturnType<typeof setTimeout> | undefined;
let wanted = false;
let wasLive = false;

/** Hears of changes; `all` after a cut. Gives what ends it. */
export function hear(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Opens the line, and keeps it open. */
export function open(): void {
  if (wanted) return;
  wanted = true;
  attempt = 0;
  void connect();
}

/** Closes it for good. */
export function close(): void {
  wanted = false;
  wasLive = false;
  clearTimeout(timer);
  socket?.close(1000);
  socket = null;
  line.value = 'connecting';
}

/** Tries at once instead of at the end of the wait. */
export function tryNow(): void {
  if (!wanted || line.value !== 'cut' || socket) return;
  clearTimeout(timer);
  void connect();
}

async function connect(): Promise<void> {
  let token: string;
  try {
    token = await tokenFor('ws');
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) return over();
    return retry();
  }
  if (!wanted) return;
  const url = at('version/ws').replace(/^http/, 'ws');
  const opened = new WebSocket(url, ['tes-ui-v2', 'tes-ui-v1', `tes-token.${token}`]);
  socket = opened;
  opened.onopen = () => opened.send(JSON.stringify({ type: 'watch', id: 'page' }));
  opened.onmessage = ({ data }) => take(opened, data);
  opened.onclose = ({ code }) => {
    if (socket !== opened) return;
    socket = null;
    if (code === SIGN_IN_OVER) over();
    else retry();
  };
}

function take(from: WebSocket, data: unknown): void {
  if (typeof data !== 'string') return;
  let message: { type?: string; topics?: string[]; code?: string };
  try {
    message = JSON.parse(data);
  } catch {
    return;
  }
  switch (message.type) {
    case 'watching':
      attempt = 0;
      line.value = 'live';
      // What happened while nobody listened is fetched again.
      if (wasLive) tell('all');
      wasLive = true;
      break;
    case 'node':
      tell(new Set(message.topics ?? []));
      break;
    case 'version_changed':
      tell(new Set(['releases']));
      break;
    case 'key_rotated':
      tell(new Set(['keys', 'releases']));
      break;
    case 'error':
      // The cookie went while the line was cut: the door knows a session of nobody, which may watch nothing.
      if (message.code === 'UNAUTHENTICATED') {
        over();
        from.close(1000);
      }
      break;
    case 'notice':
      if (message.code === 'SESSION_RENEW') void renew(from);
      break;
  }
}

async function renew(on: WebSocket): Promise<void> {
  try {
    const token = await tokenFor('ws');
    if (on.readyState === WebSocket.OPEN) on.send(JSON.stringify({ type: 'renew', token }));
  } catch {
    // The door closes the line at its end, and the page says so.
  }
}

function tell(topics: ReadonlySet<string> | 'all'): void {
  for (const listener of [...listeners]) listener(topics);
}

function retry(): void {
  if (!wanted) return;
  if (line.value === 'live') cuts.value += 1;
  line.value = 'cut';
  timer = setTimeout(() => void connect(), waitBefore(attempt++, Math.random()));
}

function over(): void {
  wanted = false;
  wasLive = false;
  line.value = 'over';
}

// A laptop that wakes up, and a network that is back, need not wait out the rest.
addEventListener('online', tryNow);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') tryNow();
});
