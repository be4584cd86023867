import { fromBase64 } from '../encoding/base64.js';
import { utf8, type Bytes } from '../encoding/bytes.js';
import { canonicalJson } from '../encoding/canonical.js';
import { isObject, member, readObject, type Json, type JsonObject } from '../encoding/json.js';
import { Refused } from '../refused.js';
import { verifyEd25519, ED25519_SIGNATURE_BYTES } from '../signature/ed25519.js';
import { gatewayMessage, type GatewayContext } from '../signature/label.js';
import { kidOf } from '../signature/pair.js';
import { memberText } from './member-text.js';
import { verifyHmac, type KeySecret } from './secret.js';

/** With what an answer is checked: a pinned Ed25519 key, or, for whoever has it, the secret of the version that signed. */
export interface AnswerKeys {
  /** The public key that the verifier knows from elsewhere, 32 bytes. */
  pinned?: Bytes;
  /** The secret of the key version that the answer names. */
  secret?: KeySecret;
}

/** What is known about an answer. Spec: GW-88. */
export type AnswerState =
  /** Signed by a key that the verifier knew before. */
  | 'verified'
  /** It has a signature, and nothing here can tell whose. */
  | 'signed, key not pinned';

/** An answer to a bump. */
export interface BumpAnswer {
  state: AnswerState;
  /** The array as it was signed. */
  bumped: Json;
  /** The version that signed, for instance `v2`. */
  keyVersion: string;
  /** `Ed25519` or `HMAC-SHA256`. */
  alg: string;
  kid: string;
}

/**
 * Checks the answer to a bump, REST body or WebSocket message, on the text as it came: the bytes of `bumped` are cut out and never
 * written again. `changes`, time and version are not covered by the signature. Spec: gateway §7.3.
 *
 * @throws Refused `bad_answer` for a text that is no such answer, `not_signed` for one without signature (a dry run),
 *   `unknown_key` for another key than the pinned one, `bad_signature`
 */
// Spec: GW-43, GW-88
export async function verifyBumpAnswer(text: string, keys: AnswerKeys = {}): Promise<BumpAnswer> {
  const data = memberText(text, 'type') === undefined ? text : (memberText(text, 'data') ?? '');
  const payload = memberText(data, 'bumped');
  const answer = payload === undefined ? undefined : (JSON.parse(data) as JsonObject);
  const bumped = answer && member(answer, 'bumped');
  if (payload === undefined || !answer || !Array.isArray(bumped)) throw new Refused('bad_answer', 'this is no answer to a bump');
  const [signature, alg, kid, keyVersion] = ['signature', 'alg', 'kid', 'keyVersion'].map((name) => member(answer, name));
  if (signature === undefined) throw new Refused('not_signed', 'the answer has no signature');
  if (typeof signature !== 'string' || typeof alg !== 'string' || typeof kid !== 'string' || typeof keyVersion !== 'string') {
    throw new Refused('bad_answer', 'the answer does not say how it is signed');
  }
  const state = await check(alg, kid, utf8(payload), signature, keys);
  return { state, bumped, keyVersion, alg, kid };
}

async function check(alg: string, kid: string, payload: Bytes, signature: string, keys: AnswerKeys): Promise<AnswerState> {
  // The verifier's own key decides the algorithm; an answer that names another one is not checked with it.
  if (alg === 'Ed25519') {
    if (!keys.pinned) return 'signed, key not pinned';
    if (kid !== kidOf(keys.pinned)) throw new Refused('unknown_key', `it is signed by key ${kid}, which is not the pinned one`);
    await verifyAlone('bump', payload, signature, keys.pinned);
    return 'verified';
  }
  if (alg !== 'HMAC-SHA256') throw new Refused('bad_answer', `${alg} signs no answer`);
  if (keys.secret === undefined) return 'signed, key not pinned';
  if (!(await verifyHmac(keys.secret, payload, signature))) throw new Refused('bad_signature', 'its HMAC does not hold');
  return 'verified';
}

/**
 * Checks what the gateway signed with Ed25519 alone. Spec: gateway §7.3, §7.4.
 *
 * @param signature standard base64 with padding, strictly
 * @throws Refused `bad_signature`
 */
// Spec: GW-44
export async function verifyAlone(context: GatewayContext, payload: Bytes, signature: string, publicKey: Bytes): Promise<void> {
  const bytes = fromBase64(signature);
  const holds = bytes?.length === ED25519_SIGNATURE_BYTES && (await verifyEd25519(publicKey, gatewayMessage(context, payload), bytes));
  if (!holds) throw new Refused('bad_signature', 'its Ed25519 signature does not verify');
}

/**
 * Checks the `registrySignature` of a registry: over the RFC 8785 form of `{app, writer, ledger, revision, entities}`.
 * Spec: gateway §8.1.
 *
 * @param registry the object, or its JSON text
 * @throws Refused `bad_answer`, `not_signed`, `bad_signature`
 */
export async function verifyRegistry(registry: string | JsonObject, pinned?: Bytes): Promise<AnswerState> {
  const object = typeof registry === 'string' ? readObject(registry, { depth: 64, values: 1_000_000 }) : registry;
  if (!isObject(object)) throw new Refused('bad_answer', 'this is no registry');
  const signature = member(object, 'registrySignature');
  if (signature === undefined) throw new Refused('not_signed', 'the registry has no signature');
  const envelope: JsonObject = {};
  for (const name of ['app', 'writer', 'ledger', 'revision', 'entities']) {
    const value = member(object, name);
    if (value === undefined) throw new Refused('bad_answer', `no registry: ${name}`);
    envelope[name] = value;
  }
  const text = canonicalJson(envelope);
  if (text === undefined || typeof signature !== 'string') throw new Refused('bad_answer', 'this is no registry');
  if (!pinned) return 'signed, key not pinned';
  await verifyAlone('registry', utf8(text), signature, pinned);
  return 'verified';
}
