import { sha512 } from '@noble/hashes/sha2.js';
import { concat, utf8, type Bytes } from '../encoding/bytes.js';

/** Every label there is; what is signed under another one never verifies. Spec: link C.4.4. */
export const LABELS = [
  'link1 responder', 'link1 initiator', 'link1 tls-cert', 'keystone1 frame', 'commit1 stone', 'release1 manifest', 'release1 head',
  'keys1 rotate', 'audit1 checkpoint',
] as const;
/** What a signature is for. */
export type Label = (typeof LABELS)[number];

/**
 * The 112 bytes that are signed for `content`: `"sealtide-sig-v1" 00 ‖ label zero-padded to 32 ‖ SHA-512(content)`.
 * Spec: link C.4.4.
 *
 * @throws RangeError for a label outside the table: what it says is no input of anybody, it is a mistake of the caller
 */
export function signedMessage(label: Label, content: Uint8Array): Bytes {
  if (!LABELS.includes(label)) throw new RangeError(`${String(label)} is no label`);
  const padded = new Uint8Array(32);
  padded.set(utf8(label));
  return concat(utf8('sealtide-sig-v1\0'), padded, sha512(content));
}

/** What the gateway signs with Ed25519 alone. Spec: gateway §7.3. */
export const GATEWAY_CONTEXTS = ['bump', 'registry', 'manifest'] as const;
/** One use of the gateway. */
export type GatewayContext = (typeof GATEWAY_CONTEXTS)[number];

/**
 * `"sealtide-gw-sig-v1" 00 ‖ context ‖ 00 ‖ payload`. Spec: gateway §7.3.
 *
 * @throws RangeError for another context
 */
export function gatewayMessage(context: GatewayContext, payload: Uint8Array): Bytes {
  if (!GATEWAY_CONTEXTS.includes(context)) throw new RangeError(`${String(context)} is no context`);
  return concat(utf8(`sealtide-gw-sig-v1\0${context}\0`), payload);
}
