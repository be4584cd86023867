import { utf8 } from '../encoding/bytes.js';
import { fromHex } from '../encoding/hex.js';
import { member, readObject, type JsonObject } from '../encoding/json.js';
import { Refused } from '../refused.js';
import { NOT_PINNED, type AnswerState } from './answer.js';
import { isSecret, verifyHmac, type KeySecret } from './secret.js';

/** Members of a transaction manifest besides its signature; `entityId` is left out where a bump was of everything. */
const NEEDED = ['transactionId', 'type', 'timestamp', 'status', 'affectedEntities', 'backedUpFiles', 'fileChanges'];
const KNOWN = [...NEEDED, 'entityId', 'signature', 'signedAt'];

/** A transaction manifest of the older system. */
export interface LegacyManifest<State extends AnswerState = AnswerState> {
  /** `verified` only for whoever has the secret: HMAC proves nothing to others. */
  state: State;
  /** Its members without `signature` and `signedAt`. Of `signedAt` nothing is proven, so it is not here. */
  content: JsonObject;
}

/**
 * Checks a transaction manifest that the older system wrote: HMAC-SHA256 over its compact JSON without `signature` **and** `signedAt`,
 * members in the order in which they stand. The older verifier left `signedAt` in, and so took none of them. Spec: gateway §9.1.
 *
 * A bundle manifest that HMAC signed is `untrusted`, whoever has the secret: who can check it can write it too.
 *
 * @throws Refused `bad_answer` for a text that is none, `not_signed`, `untrusted`, `unknown_key` without a secret, `bad_signature`
 */
// Spec: GW-73
export async function verifyLegacyManifest(text: string, secret: KeySecret): Promise<LegacyManifest<'verified'>> {
  const { content, signature } = readSigned(text);
  if (!isSecret(secret)) throw new Refused('unknown_key', 'no secret was given to check the manifest with');
  if (!(await verifyHmac(secret, utf8(JSON.stringify(content)), signature))) throw new Refused('bad_signature', 'its HMAC does not hold');
  return { state: 'verified', content };
}

/**
 * Reads a transaction manifest for whoever has no secret. **Nothing of it is proven.**
 *
 * @throws Refused `bad_answer`, `not_signed`, `untrusted`, `bad_signature` for a signature that can be none
 */
// Spec: GW-73
export function readLegacyManifest(text: string): LegacyManifest<typeof NOT_PINNED> {
  return { state: NOT_PINNED, content: readSigned(text).content };
}

function readSigned(text: string): { content: JsonObject; signature: string } {
  const object = readObject(text, { depth: 64, values: 1_000_000 });
  if (!object) throw new Refused('bad_answer', 'this is no manifest');
  if (isBundleManifest(object)) throw new Refused('untrusted', 'the manifest of a bundle counts by the two signatures of a pair alone, never by HMAC');
  const isWhole = NEEDED.every((name) => Object.hasOwn(object, name)) && Object.keys(object).every((name) => KNOWN.includes(name));
  if (!isWhole) throw new Refused('bad_answer', 'this is no manifest of a transaction');
  const signature = member(object, 'signature');
  if (signature === undefined) throw new Refused('not_signed', 'the manifest has no signature');
  const { signature: _, signedAt: __, ...content } = object;
  if (typeof signature !== 'string' || fromHex(signature)?.length !== 32) throw new Refused('bad_signature', 'its signature is no HMAC');
  return { content, signature };
}

/** Whether this says that it is the manifest of a bundle, however it is signed: such a one counts only in its file, by a pair. */
function isBundleManifest(object: JsonObject): boolean {
  return ['manifestVersion', 'registry', 'files'].some((name) => Object.hasOwn(object, name));
}
