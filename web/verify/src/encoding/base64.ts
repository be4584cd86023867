import type { Bytes } from './bytes.js';

/** Standard base64 with padding. */
export function base64(bytes: Uint8Array): string {
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/**
 * The bytes of standard base64, strictly: padded, nothing around it, and no digit whose last bits say nothing.
 * `undefined` for any other spelling. Spec: gateway §7.4.
 */
export function fromBase64(spelled: string): Bytes | undefined {
  if (spelled.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(spelled)) return undefined;
  let binary: string;
  try {
    binary = atob(spelled);
  } catch {
    return undefined;
  }
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  return base64(bytes) === spelled ? bytes : undefined;
}

/** Exactly `length` bytes from base64url without padding (RFC 4648 §5), strictly; undefined for anything else. */
export function fromBase64url(spelled: unknown, length: number): Bytes | undefined {
  if (typeof spelled !== 'string' || !/^[A-Za-z0-9_-]*$/.test(spelled)) return undefined;
  const padding = '='.repeat((4 - (spelled.length % 4)) % 4);
  const bytes = fromBase64(spelled.replaceAll('-', '+').replaceAll('_', '/') + padding);
  return bytes?.length === length ? bytes : undefined;
}
