import { ed25519 } from '@noble/curves/ed25519.js';
import { copied, type Bytes } from '../encoding/bytes.js';
import { hex } from '../encoding/hex.js';

/** Bytes of an Ed25519 public key. */
export const ED25519_KEY_BYTES = 32;
/** Bytes of an Ed25519 signature. */
export const ED25519_SIGNATURE_BYTES = 64;

const FIELD_PRIME = 2n ** 255n - 19n;
const GROUP_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
/** A y coordinate of the points of order eight; the other is its negative. */
const ORDER_EIGHT = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;
/** The y coordinates of the points whose order divides eight. */
const SMALL_ORDER = new Set([0n, 1n, FIELD_PRIME - 1n, ORDER_EIGHT, FIELD_PRIME - ORDER_EIGHT]);

/** Whether 32 bytes are a public key that may be trusted: canonical, and not of small order. Spec: gateway §7.4. */
export function isGoodPoint(encoded: Uint8Array): boolean {
  if (encoded.length !== 32) return false;
  const y = littleEndian(encoded) & (2n ** 255n - 1n);
  return y < FIELD_PRIME && !SMALL_ORDER.has(y);
}

/** Whether 32 bytes are a public key: {@link isGoodPoint}, and on the curve. */
export function isEd25519Key(encoded: Uint8Array): boolean {
  if (!isGoodPoint(encoded)) return false;
  try {
    ed25519.Point.fromBytes(encoded);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether an Ed25519 signature (RFC 8032) is good, strictly: canonical S, canonical points, none of small order. By WebCrypto
 * where the platform has Ed25519, else by `@noble/curves`. Never throws. Spec: gateway §7.4.
 */
export async function verifyEd25519(givenKey: Uint8Array, message: Bytes, given: Uint8Array): Promise<boolean> {
  if (givenKey.length !== ED25519_KEY_BYTES || given.length !== ED25519_SIGNATURE_BYTES) return false;
  const [publicKey, signature] = [copied(givenKey), copied(given)];
  const [point, scalar] = [signature.subarray(0, 32), signature.subarray(32)];
  if (!isGoodPoint(publicKey) || !isGoodPoint(point) || littleEndian(scalar) >= GROUP_ORDER) return false;
  const native = await byPlatform(publicKey, message, signature);
  if (native !== undefined) return native;
  try {
    return ed25519.verify(signature, message, publicKey, { zip215: false });
  } catch {
    return false;
  }
}

/** `undefined` where there is no WebCrypto, or one without Ed25519. */
async function byPlatform(publicKey: Bytes, message: Bytes, signature: Bytes): Promise<boolean | undefined> {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return undefined;
  try {
    const key = await subtle.importKey('raw', publicKey, { name: 'Ed25519' }, false, ['verify']);
    return await subtle.verify({ name: 'Ed25519' }, key, signature, message);
  } catch {
    return undefined;
  }
}

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${hex(Uint8Array.from(bytes).reverse())}`);
}
