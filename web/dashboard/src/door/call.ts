/** Requests to the door: relative to the page, so that any prefix works. */
import type { Role, Session } from './documents.js';
import type { NodeRequest } from './requests.js';

/** What the door or the node refused, in words for a person. */
export class Refusal extends Error {
  readonly code: string;
  readonly hint: string | null;
  /** The HTTP status; 0 when nothing answered. */
  readonly status: number;

  constructor(status: number, code: string, message: string, hint: string | null = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

/** A change that was made, and the line of the audit that tells of it. */
export interface Done<T> {
  result: T;
  audit: number | null;
}

let onSignedOut: () => void = () => undefined;

/** Who is told when the door does not know the caller any more. */
export function whenSignedOut(listener: () => void): void {
  onSignedOut = listener;
}

/** The address of something at the door, from its path below the prefix. */
export function at(path: string): string {
  return new URL(`../${path}`, document.baseURI).href;
}

/** How long the node may take to show something, ms: a connection may end unheard, and then nothing comes any more. */
const READ_MS = 30_000;
/** The same where it looks through everything that it has, or asks others. */
export const SLOW_MS = 600_000;

/** Asks for something that reading shows. */
export async function ask<T>(request: NodeRequest, withinMs = READ_MS): Promise<T> {
  return (await post<{ result: T }>(request, {}, withinMs)).result;
}

/** Changes something, with a token of its own. */
export async function change<T = unknown>(request: NodeRequest): Promise<Done<T>> {
  const token = await tokenFor('http');
  const { result, audit } = await post<{ result: T; audit?: number }>(request, { 'x-csrf-token': token });
  return { result, audit: audit ?? null };
}

/** A one-time token. */
export async function tokenFor(purpose: 'ws' | 'http'): Promise<string> {
  const answer = await fetched(at(`api/auth/csrf-token?purpose=${purpose}`), READ_MS);
  return (await whole<{ token: string }>(answer)).token;
}

/** Who is signed in. A cookie that is over counts as nobody. */
export async function session(): Promise<Session> {
  const answer = await reached(at('api/auth/session'), {}, READ_MS);
  if (answer.status === 401) return { id: null, role: 'public' };
  if (!answer.ok) throw await refusalOf(answer);
  return whole<Session>(answer);
}

/** Signs in, by a one-time code or by name and passphrase. */
export async function signIn(proof: { code: string } | { name: string; passphrase: string }): Promise<Session> {
  const answer = await reached(at('api/auth/session'), {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(proof),
  });
  if (!answer.ok) throw await refusalOf(answer);
  return (await answer.json()) as Session;
}

/** Signs out. */
export async function signOut(): Promise<void> {
  await reached(at('api/auth/session'), { method: 'DELETE' });
}

/** Gets something that is no call: an entity list, a trust file, a bundle. */
export async function fetched(url: string, withinMs?: number): Promise<Response> {
  const answer = await reached(url, {}, withinMs);
  if (!answer.ok) throw await refusalOf(answer);
  return answer;
}

/** Whether a role is enough for another. */
export function isEnough(has: Role, needs: Role): boolean {
  const order: Role[] = ['public', 'reader', 'bumper', 'admin'];
  return order.indexOf(has) >= order.indexOf(needs);
}

async function post<T>(request: NodeRequest, headers: Record<string, string>, withinMs?: number): Promise<T> {
  const answer = await reached(at('api/node/call'), {
    method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(request),
  }, withinMs);
  if (!answer.ok) throw await refusalOf(answer);
  return whole<T>(answer);
}

/** What changes something, and what may be large, takes as long as it takes: no `withinMs`. */
async function reached(url: string, options: RequestInit = {}, withinMs?: number): Promise<Response> {
  const signal = withinMs === undefined ? null : AbortSignal.timeout(withinMs);
  try {
    return await fetch(url, { credentials: 'same-origin', cache: 'no-store', signal, ...options });
  } catch {
    throw unreachable();
  }
}

/** The document of an answer. It may break off, or not come to its end in time. */
async function whole<T>(answer: Response): Promise<T> {
  try {
    return (await answer.json()) as T;
  } catch {
    throw unreachable();
  }
}

function unreachable(): Refusal {
  return new Refusal(0, 'unreachable', 'The node does not answer.', 'Is it running? `sealtide status` tells.');
}

/** What an answer that is no success says. */
async function refusalOf(answer: Response): Promise<Refusal> {
  let body: { error?: string | { code?: string; message?: string; hint?: string | null }; code?: string } = {};
  try {
    body = await answer.json();
  } catch {
    // The status says enough.
  }
  if (typeof body.error === 'object') {
    const { code = 'failed', message = 'It failed.', hint = null } = body.error;
    return new Refusal(answer.status, code, message, hint);
  }
  const code = body.code ?? `HTTP_${answer.status}`;
  if (answer.status === 401) onSignedOut();
  return new Refusal(answer.status, code, wordsOf(answer.status, body.error ?? answer.statusText));
}

function wordsOf(status: number, line: string): string {
  switch (status) {
    case 401:
      return 'You are not signed in any more.';
    case 403:
      return 'The door refused this: your role is not enough, or another page asked.';
    case 429:
      return 'Too many requests; wait a moment and try again.';
    default:
      return line || `The door answered ${status}.`;
  }
}
