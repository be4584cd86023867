import { sha256 } from '@noble/hashes/sha2.js';
import { fromBase64url } from '../encoding/base64.js';
import { concat, sized } from '../encoding/bytes.js';
import { fromHex, hex } from '../encoding/hex.js';
import type { JsonObject } from '../encoding/json.js';
import { Refused } from '../refused.js';
import { exactly, hex32, integer, string } from '../release/members.js';
import { signedMessage } from '../signature/label.js';
import { ML_DSA_SIGNATURE_BYTES, verifyMlDsa87 } from '../signature/mldsa.js';
import { canonical } from './hash.js';
import type { VerifiedRecord } from './record.js';

/** What a node signed: that these tips are its own. */
export interface CommitStone {
  /** Text form of the node. */
  by: string;
  /** First frame of the keystone of its device. */
  keystone: string;
  /** Ms since 1970, as the node says. */
  at: number;
  /** Commits of this node in this space before it. */
  seq: number;
  /** Addresses of the tips, in the order of their sids. */
  tips: string[];
}

/**
 * Checks a commit stone: one ML-DSA-87 signature of the node under `commit1 stone`. Spec: ibgib §12.6.
 *
 * @param nodeKey the ML-DSA-87 public key of the node, from elsewhere
 * @param sids the sids of the tips, when the caller has the tips: then they must be those that were signed
 * @throws Refused `bad_commit` for a record that is none, `bad_signature`
 */
export function verifyCommitStone(stone: VerifiedRecord, nodeKey: Uint8Array, sids?: readonly string[]): CommitStone {
  const bad = new Refused('bad_commit', `${stone.address} is no commit stone`);
  const { ib, data, rel8ns } = stone.record;
  const object = ib === 'commit' ? exactly((data ?? null) as JsonObject, ['by', 'keystone', 'at', 'seq', 'tips', 'st']) : undefined;
  const st = object && exactly(object['st']!, ['v', 'alg', 'kid', 'sig']);
  if (!object || st?.['v'] !== 1 || st['alg'] !== 'ML-DSA-87') throw bad;
  const [by, keystone, at, seq] = [string(object['by']!), string(object['keystone']!), integer(object['at']!), integer(object['seq']!)];
  const [tips, sig] = [hex32(object['tips']!), fromBase64url(st['sig'], ML_DSA_SIGNATURE_BYTES)];
  if (by === undefined || keystone === undefined || at === undefined || seq === undefined || tips === undefined || !sig) throw bad;
  const { sig: _, ...unsigned } = st;
  const content = concat(sized(canonical({ ...object, st: unsigned })), sized(canonical(rel8ns ?? {})));
  if (!verifyMlDsa87(nodeKey, signedMessage('commit1 stone', content), sig)) {
    throw new Refused('bad_signature', `${stone.address}: its ML-DSA-87 signature does not verify`);
  }
  if (sids && hex(sha256(concat(...[...sids].sort().map((it) => fromHex(it)!)))) !== tips) {
    throw new Refused('bad_commit', `${stone.address}: the tips are not those that were signed`);
  }
  return { by, keystone, at, seq, tips: rel8ns?.['tip'] ?? [] };
}
