/** What the whole page knows: who is signed in, where it is, what was just done. */
import { computed, signal } from '@preact/signals';
import { isEnough } from './door/call.js';
import type { Role, Session } from './door/documents.js';
import { codeOf, routeOf, type Route } from './pure/route.js';

/** Who is signed in; null until the door told. */
export const who = signal<Session | null>(null);
/** Why there is a sign-in page, when there is more to say than that. */
export const signInNote = signal<string | null>(null);
/** Where the page is. */
export const route = signal<Route>(routeOf(location.hash));
/** Now, in ms since 1970, every few seconds: what times are told against. */
export const now = signal(Date.now());

/** Names of nodes by their ids, as far as an answer told them. */
export const names = signal<ReadonlyMap<string, string>>(new Map());

/** Something that was done or failed, told for a moment. */
export interface Toast {
  id: number;
  tone: 'ok' | 'bad';
  text: string;
  hint: string | null;
  /** The line of the audit that tells of it. */
  audit: number | null;
}

/** What is told now. */
export const toasts = signal<readonly Toast[]>([]);

/** The role of who is signed in. */
export const role = computed<Role>(() => (who.value?.id ? who.value.role : 'public'));

const TOAST_MS = 15_000;
let lastToast = 0;

/** Tells something; it goes by itself, unless it is about a failure. */
export function tell(toast: Omit<Toast, 'id'>): void {
  const id = ++lastToast;
  toasts.value = [...toasts.value.slice(-3), { ...toast, id }];
  if (toast.tone === 'ok') setTimeout(() => dismiss(id), TOAST_MS);
}

/** Takes a toast away. */
export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

/** Why the role is not enough; null when it is. */
export function lacks(needs: Role): string | null {
  if (isEnough(role.value, needs)) return null;
  return `Needs the role ${needs === 'bumper' ? 'write (bumper)' : needs}; you are ${role.value}.`;
}

addEventListener('hashchange', () => {
  // A link that signs in leaves the page where it is.
  if (codeOf(location.hash)) return;
  route.value = routeOf(location.hash);
});
setInterval(() => {
  now.value = Date.now();
}, 10_000);
