import { fromBase64 } from '../encoding/base64.js';
import { utf8 } from '../encoding/bytes.js';
import { canonicalJson } from '../encoding/canonical.js';
import { isObject, member, readObject, type Json, type JsonObject } from '../encoding/json.js';
import { Refused } from '../refused.js';
import { verifyEd25519, ED25519_SIGNATURE_BYTES } from '../signature/ed25519.js';
import { gatewayMessage, type GatewayContext } from '../signature/label.js';
import { kidOf } from '../signature/pair.js';
import { memberText } from './member-text.js';
import { isSecret, verifyHmac, type KeySecret } from './secret.js';

/** With what an answer is checked: a pinned Ed25519 key, or, for whoever has it, the secret of the version that signed. One of them at least. */
export type AnswerKeys = (PinnedKey & Partial<SecretKey>) | (Partial<PinnedKey> & SecretKey);
interface PinnedKey {
  /** The public key that the verifier knows from elsewhere, 32 bytes. */
  pinned: Uint8Array;
}
interface SecretKey {
  /** The secret of the key version that the answer names. */
  secret: KeySecret;
}

/** What is known about an answer. Spec: GW-88. */
export type AnswerState =
  /** Signed by a key that the verifier knew before. */
  | 'verified'
  /** It has a signature, and nothing here can tell whose: what `read…` says, and never `verify…`. */
  | typeof NOT_PINNED;
/** The state of what was read only. */
export const NOT_PINNED = 'signed, key not pinned';

/** An answer to a bump. */
export interface BumpAnswer<State extends AnswerState = AnswerState> {
  state: State;
  /** The array as it was signed. */
  bumped: Json;
  /** The version that signed, for instance `v2`. */
  keyVersion: string;
  alg: AnswerAlgorithm;
  kid: string;
}

const ANSWER_ALGORITHMS = ['Ed25519', 'HMAC-SHA256'] as const;
/** What signs an answer. */
export type AnswerAlgorithm = (typeof ANSWER_ALGORITHMS)[number];

/**
 * Checks the answer to a bump, REST body or WebSocket message, on the text as it came: the bytes of `bumped` are cut out and never
 * written again. `changes`, time and version are not covered by the signature. Spec: gateway §7.3.
 *
 * @throws Refused `bad_answer` for a text that is no such answer, `not_signed` for one without signature (a dry run),
 *   `unknown_key` for another key than the pinned one and for an algorithm of which no key was given, `bad_signature`
 */
// Spec: GW-43, GW-88
export async function verifyBumpAnswer(text: string, keys: AnswerKeys): Promise<BumpAnswer<'verified'>> {
  const { answer, payload, signature } = readSigned(text);
  const { alg, kid } = answer;
  // The verifier's own keys decide what counts. Who changes an answer may name the other algorithm: that must not turn the check off.
  if (alg === 'Ed25519' && keys?.pinned) {
    if (kid !== kidOf(keys.pinned)) throw new Refused('unknown_key', `it is signed by key ${kid}, which is not the pinned one`);
    await verifyAlone('bump', payload, signature, keys.pinned);
  } else if (alg === 'HMAC-SHA256' && isSecret(keys?.secret)) {
    if (!(await verifyHmac(keys.secret, payload, signature))) throw new Refused('bad_signature', 'its HMAC does not hold');
  } else {
    throw new Refused('unknown_key', `it says that ${alg} signed it, and no key for that was given`);
  }
  return { state: 'verified', ...answer };
}

/**
 * Reads the answer to a bump for whoever has no key to check it with. **Nothing of it is proven**: anybody on the way may have written it.
 *
 * @throws Refused `bad_answer`, `not_signed`
 */
// Spec: GW-88
export function readBumpAnswer(text: string): BumpAnswer<typeof NOT_PINNED> {
  return { state: NOT_PINNED, ...readSigned(text).answer };
}

function readSigned(text: string): { answer: Omit<BumpAnswer, 'state'>; payload: Uint8Array; signature: string } {
  const data = memberText(text, 'type') === undefined ? text : (memberText(text, 'data') ?? '');
  const payload = memberText(data, 'bumped');
  const answer = payload === undefined ? undefined : (JSON.parse(data) as JsonObject);
  const bumped = answer && member(answer, 'bumped');
  if (payload === undefined || !answer || !Array.isArray(bumped)) throw new Refused('bad_answer', 'this is no answer to a bump');
  const [signature, told, kid, keyVersion] = ['signature', 'alg', 'kid', 'keyVersion'].map((name) => member(answer, name));
  if (signature === undefined) throw new Refused('not_signed', 'the answer has no signature');
  if (typeof signature !== 'string' || typeof told !== 'string' || typeof kid !== 'string' || typeof keyVersion !== 'string') {
    throw new Refused('bad_answer', 'the answer does not say how it is signed');
  }
  const alg = ANSWER_ALGORITHMS.find((it) => it === told);
  if (!alg) throw new Refused('bad_answer', `${told} signs no answer`);
  return { answer: { bumped, keyVersion, alg, kid }, payload: utf8(payload), signature };
}

/**
 * Checks what the gateway signed with Ed25519 alone. Spec: gateway §7.3, §7.4.
 *
 * @param signature standard base64 with padding, strictly
 * @throws Refused `bad_signature`
 */
// Spec: GW-44
export async function verifyAlone(context: GatewayContext, payload: Uint8Array, signature: string, publicKey: Uint8Array): Promise<void> {
  const bytes = fromBase64(signature);
  const holds = bytes?.length === ED25519_SIGNATURE_BYTES && (await verifyEd25519(publicKey, gatewayMessage(context, payload), bytes));
  if (!holds) throw new Refused('bad_signature', 'its Ed25519 signature does not verify');
}

/** What `registrySignature` covers of a registry. */
export interface SignedRegistry<State extends AnswerState = AnswerState> {
  state: State;
  /** `app`, `writer`, `ledger`, `revision` and `entities`; of other members nothing is signed. */
  content: JsonObject;
}

/**
 * Checks the `registrySignature` of a registry: over the RFC 8785 form of `{app, writer, ledger, revision, entities}`.
 * Spec: gateway §8.1.
 *
 * @param registry the object, or its JSON text
 * @param pinned the public key that the verifier knows from elsewhere, 32 bytes
 * @throws Refused `bad_answer`, `not_signed`, `unknown_key` without a key, `bad_signature`
 */
export async function verifyRegistry(registry: string | JsonObject, pinned: Uint8Array): Promise<SignedRegistry<'verified'>> {
  const { content, text, signature } = readEnvelope(registry);
  if (!pinned) throw new Refused('unknown_key', 'no key was given to check the registry with');
  await verifyAlone('registry', utf8(text), signature, pinned);
  return { state: 'verified', content };
}

/**
 * Reads a registry for whoever has no key to check it with. **Nothing of it is proven.**
 *
 * @throws Refused `bad_answer`, `not_signed`
 */
export function readRegistry(registry: string | JsonObject): SignedRegistry<typeof NOT_PINNED> {
  return { state: NOT_PINNED, content: readEnvelope(registry).content };
}

function readEnvelope(registry: string | JsonObject): { content: JsonObject; text: string; signature: string } {
  const object = typeof registry === 'string' ? readObject(registry, { depth: 64, values: 1_000_000 }) : registry;
  if (!isObject(object)) throw new Refused('bad_answer', 'this is no registry');
  const signature = member(object, 'registrySignature');
  if (signature === undefined) throw new Refused('not_signed', 'the registry has no signature');
  const content: JsonObject = {};
  for (const name of ['app', 'writer', 'ledger', 'revision', 'entities']) {
    const value = member(object, name);
    if (value === undefined) throw new Refused('bad_answer', `no registry: ${name}`);
    content[name] = value;
  }
  const text = canonicalJson(content);
  if (text === undefined || typeof signature !== 'string') throw new Refused('bad_answer', 'this is no registry');
  return { content, text, signature };
}
