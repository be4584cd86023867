import { hkdf } from '@noble/hashes/hkdf.js';
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { copied, equal, utf8, type Bytes } from '../encoding/bytes.js';
import { fromHex, hex } from '../encoding/hex.js';

/** The secret of a key version: a text from the environment or a file, or the 32 raw bytes of a generated one. */
export type KeySecret = string | Uint8Array;

/** Whether somebody gave a secret: an empty one is everybody's, and storage, JSON and the environment give `null` or `''` for none. */
export function isSecret(secret: unknown): secret is KeySecret {
  return (typeof secret === 'string' || secret instanceof Uint8Array) && secret.length > 0;
}

/**
 * The HMAC key of a secret: of a text its UTF-8 bytes as written, hex or not; raw bytes as they are. Spec: gateway §7.2.
 *
 * @throws TypeError for what is neither
 */
export function hmacKey(secret: KeySecret): Bytes {
  if (typeof secret === 'string') return utf8(secret);
  // Of `null`, say, an empty key would come.
  if (!(secret instanceof Uint8Array)) throw new TypeError('a secret is a text or bytes');
  return copied(secret);
}

/**
 * The seeds of the pair of version `number`, 32 bytes each; `undefined` for a secret that has no pair: a text that is not 64
 * lower-case hex digits, or raw bytes that are not 32. Spec: gateway §7.4.
 */
export function pairSeeds(secret: KeySecret, number: number): { ed25519: Bytes; mlDsa: Bytes } | undefined {
  const input = typeof secret === 'string' ? fromHex(secret) : secret;
  if (input?.length !== 32) return undefined;
  const seed = (use: string): Bytes => hkdf(sha256, input, undefined, utf8(`sealtide/gw/${use}/v${number}`), 32) as Bytes;
  return { ed25519: seed('ed25519'), mlDsa: seed('mldsa87') };
}

/** The HMAC-SHA256 of a payload, 64 lower-case hex digits: by WebCrypto where there is one. Spec: gateway §7.3, §7.4. */
export async function hmacSignature(secret: KeySecret, payload: Uint8Array): Promise<string> {
  const key = hmacKey(secret);
  const subtle = globalThis.crypto?.subtle;
  // WebCrypto takes no empty key.
  if (!subtle || key.length === 0) return hex(hmac(sha256, key, payload));
  const imported = await subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return hex(new Uint8Array(await subtle.sign('HMAC', imported, copied(payload))));
}

/** Whether an HMAC holds, for whoever has the secret; upper-case digits are refused. Spec: gateway §7.4. */
export async function verifyHmac(secret: KeySecret, payload: Uint8Array, signature: string): Promise<boolean> {
  const told = fromHex(signature);
  return told?.length === 32 && equal(told, fromHex(await hmacSignature(secret, payload))!);
}

/** The name of an HMAC key: first 16 hex digits of HMAC(key, `sealtide-gw-kid` 00 `vN`). Spec: gateway §7.6. */
export function hmacKid(secret: KeySecret, number: number): string {
  return hex(hmac(sha256, hmacKey(secret), utf8(`sealtide-gw-kid\0v${number}`))).slice(0, 16);
}
