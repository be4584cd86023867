/**
 * The live line: one WebSocket over which the node says what changed. Nothing is polled; after a cut everything that is shown
 * is fetched again, so nothing is missed.
 *
 * ```text
 * connecting ──watching──▶ live ──closed──▶ cut ──back-off──▶ connecting
 *                            └──4401──▶ over (sign in again)
 * ```
 *
 * A socket may end unheard: the machine slept, a network changed, a proxy forgot it. So the page asks for a sign of life now and
 * then, and at once where there is reason to doubt; who does not answer in time counts as closed.
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
/** How often a line that is still is asked for a sign of life, ms … */
const ASK_EVERY = 15_000;
/** … and how long it may take, ms. */
const ANSWER_WITHIN = 10_000;

let socket: WebSocket | null = null;
/** The attempt that counts. Another one, and whatever ends one, makes the earlier ones count no more. */
let generation = 0;
let attempt = 0;
let timer: ReturnType<typeof setTimeout> | undefined;
let wanted = false;
let wasLive = false;
/** Ends with the next question, or with the judgement that nobody answers. */
let beat: ReturnType<typeof setTimeout> | undefined;

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
  end();
  line.value = 'connecting';
}

/** Tries at once instead of at the end of the wait. */
export function tryNow(): void {
  if (!wanted || line.value !== 'cut' || socket) return;
  void connect();
}

/** Makes the attempt before count no more: its token, its wait, its socket. */
function drop(): void {
  generation += 1;
  clearTimeout(timer);
  clearTimeout(beat);
  socket?.close(1000);
  socket = null;
}

async function connect(): Promise<void> {
  drop();
  const mine = generation;
  let token: string;
  try {
    token = await tokenFor('ws');
  } catch (error) {
    if (mine !== generation) return;
    if (error instanceof Refusal && error.status === 401) return over();
    return retry();
  }
  if (mine !== generation) return;
  const url = at('version/ws').replace(/^http/, 'ws');
  const opened = new WebSocket(url, ['tes-ui-v2', 'tes-ui-v1', `tes-token.${token}`]);
  socket = opened;
  expect(opened);
  opened.onopen = () => opened.send(JSON.stringify({ type: 'watch', id: 'page' }));
  opened.onmessage = ({ data }) => {
    if (socket !== opened) return;
    clearTimeout(beat);
    beat = setTimeout(() => ask(opened), ASK_EVERY);
    take(opened, data);
  };
  opened.onclose = ({ code }) => ended(opened, code);
}

/** Asks for a sign of life. */
function ask(on: WebSocket): void {
  if (socket !== on || on.readyState !== WebSocket.OPEN) return;
  on.send(JSON.stringify({ type: 'ping' }));
  expect(on);
}

/** Counts a line as closed from which nothing comes in time. The browser may take minutes to close it. */
function expect(on: WebSocket): void {
  clearTimeout(beat);
  beat = setTimeout(() => {
    ended(on, 0);
    on.close();
  }, ANSWER_WITHIN);
}

function ended(was: WebSocket, code: number): void {
  if (socket !== was) return;
  clearTimeout(beat);
  socket = null;
  if (code === SIGN_IN_OVER) over();
  else retry();
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
      if (message.code === 'UNAUTHENTICATED') over();
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
  clearTimeout(timer);
  timer = setTimeout(() => void connect(), waitBefore(attempt++, Math.random()));
}

function over(): void {
  end();
  line.value = 'over';
}

/** Wants no line any more. */
function end(): void {
  wanted = false;
  wasLive = false;
  drop();
}

/** A laptop that wakes up, and a network that is back, need not wait out the rest. */
function back(): void {
  tryNow();
  if (socket) ask(socket);
}
addEventListener('online', back);
addEventListener('offline', () => socket && ask(socket));
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') back();
});
