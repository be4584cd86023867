import { sha256, sha512 } from '@noble/hashes/sha2.js';
import { fromBase64url } from '../encoding/base64.js';
import { concat, sized, utf8, type Bytes } from '../encoding/bytes.js';
import { hex } from '../encoding/hex.js';
import { isObject, type Json, type JsonObject } from '../encoding/json.js';
import { exactly, list, string } from '../release/members.js';
import { signedMessage } from '../signature/label.js';
import { ML_DSA_KEY_BYTES, ML_DSA_SIGNATURE_BYTES, verifyMlDsa87 } from '../signature/mldsa.js';
import { canonical } from './hash.js';
import type { VerifiedRecord } from './record.js';

/** Frames of one keystone that are looked at, at most. */
const FRAMES_MAX = 256;
const SOLUTIONS_MAX = 64;
const POOL_SIZE_MAX = 1024;
/** The pools of an owner, in their order: what each proves, how it is filled again, how many challenges it has at least. */
const POOLS = [
  { id: 'default', verbs: ['sync', 'post', 'delegate', 'undelegate'], replenish: 'replace-all', least: 256 },
  { id: 'manage', verbs: ['manage'], replenish: 'replace-all', least: 512 },
  { id: 'revoke', verbs: ['revoke'], replenish: 'scorched-earth', least: 256 },
] as const;

interface Pool {
  id: string;
  config: JsonObject;
  /** Id and hash, in their order. */
  challenges: Map<string, string>;
  /** As it stands in the frame. */
  text: string;
}

interface Proof {
  claim: JsonObject;
  pool: string;
  solutions: { id: string; value: string }[];
}

/** A frame that was checked, and what holds after it. */
interface Standing {
  address: string;
  data: JsonObject;
  pools: Pool[];
  key: Bytes;
}

/**
 * Which records of a key ledger an owner keystone lets count: the SHA-256 of each in hex, with the counter of the managing frame that
 * names it. Such a frame is proven by pool `manage`, whose secret are the owner's recovery words. Spec: ibgib §12.3, releases.md §4.
 *
 * Frames may come in any order. Those that break a rule, or hang in the air, prove nothing; of a keystone that was revoked, or went
 * two ways, none does. (The node decides some forks; what its publisher hands out has none.)
 *
 * @param root address of the first frame
 */
// Spec: GW-106
export function keyringAuthority(root: string, frames: readonly VerifiedRecord[]): ReadonlyMap<string, number> {
  const none = new Map<string, number>();
  const found = new Map(frames.slice(0, FRAMES_MAX).map((record) => [record.address, record]));
  const first = found.get(root);
  let at = first && readFirst(first);
  const [named, used] = [new Map<string, number>(), new Set<string>()];
  while (at) {
    for (const id of idsOf(at)) used.add(id);
    const before: Standing = at;
    const followers = [...found.values()].filter((record) => record.frame?.past.at(-1) === before.address);
    const steps = followers.map((record) => readNext(before, record, root, used)).filter((step) => step !== undefined);
    if (steps.length > 1 || steps[0]?.isRevoked) return none;
    at = steps[0]?.standing;
    const record = at?.data['keyring'];
    if (at && steps[0]?.isManaging && typeof record === 'string') named.set(record, at.data['n'] as number);
  }
  return named;
}

function readFirst(record: VerifiedRecord): Standing | undefined {
  const { data, rel8ns } = record.record;
  const object = isObject(data as Json) ? (data as JsonObject) : undefined;
  if (!object || record.record.ib !== 'keystone' || canonical(rel8ns) !== '{"ancestor":["keystone^gib"]}') return undefined;
  const pools = readPools(object, true);
  const isFirst = object['n'] === 0 && object['isTjp'] === true && canonical(object['proofs']) === '[]' && !('revocationInfo' in object);
  const key = fromBase64url(blockOf(object)?.['pk'], ML_DSA_KEY_BYTES);
  if (!pools || !isFirst || !/^[0-9a-f]{64}$/.test(String(object['uuid'])) || !key) return undefined;
  return isSigned(object, '', rel8ns, key) ? { address: record.address, data: object, pools, key } : undefined;
}

interface Step {
  standing?: Standing;
  isManaging: boolean;
  isRevoked: boolean;
}

function readNext(before: Standing, record: VerifiedRecord, root: string, used: ReadonlySet<string>): Step | undefined {
  const { data: value, rel8ns } = record.record;
  const relations = { ancestor: ['keystone^gib'], past: [before.address], tjp: [root] };
  if (!isObject(value as Json) || record.record.ib !== 'keystone' || canonical(rel8ns) !== canonical(relations)) return undefined;
  const data = value as JsonObject;
  const isRevoked = 'revocationInfo' in data;
  const [n, stamp, stampBefore] = [data['n'], stampOf(data), stampOf(before.data)];
  if (n !== (before.data['n'] as number) + 1 || data['uuid'] !== before.data['uuid'] || 'isTjp' in data) return undefined;
  if (stamp === undefined || stampBefore === undefined || stamp < stampBefore) return undefined;
  const proof = readProof(data);
  const pool = before.pools.find(({ id }) => id === proof?.pool);
  if (!proof || !pool || !isProven(before, pool, proof, data, relations)) return undefined;
  const isManaging = pool.id === 'manage' && !isRevoked;
  const isAbout = proof.claim['target'] === before.address;
  // Whatever else a revocation says: nobody who has no words makes one.
  if (isRevoked) return pool.id === 'revoke' && isAbout ? { isManaging, isRevoked } : undefined;
  const pools = readPools(data, isManaging);
  if (!pools || pool.id === 'revoke' || (isManaging ? !isAbout : !isReplenished(before, pools, pool))) return undefined;
  const fresh = pools.filter(({ id, text }) => id === pool.id || text !== before.pools.find((it) => it.id === id)!.text);
  if (fresh.some(({ challenges }) => [...challenges.keys()].some((id) => used.has(id)))) return undefined;
  const named = blockOf(data)?.['pk'];
  const key = named === undefined ? before.key : isManaging ? fromBase64url(named, ML_DSA_KEY_BYTES) : undefined;
  if (!key || !isSigned(data, before.address, rel8ns, key)) return undefined;
  return { standing: { address: record.address, data, pools, key }, isManaging, isRevoked };
}

/** The time of a frame, ms: `timestamp` has whole seconds, `timestampMs` the rest. */
function stampOf(data: JsonObject): number | undefined {
  const [text, ms] = [data['timestamp'], data['timestampMs']];
  const seconds = typeof text === 'string' ? Date.parse(text) : Number.NaN;
  const isWell = new Date(seconds).toUTCString() === text && typeof ms === 'number' && Number.isInteger(ms) && ms >= 0 && ms < 1000;
  return isWell ? seconds + ms : undefined;
}

/** Whether the revealed values are those that the content demands, and solve them. */
function isProven(before: Standing, pool: Pool, { claim, solutions }: Proof, data: JsonObject, relations: unknown): boolean {
  const verbs = pool.config['allowedVerbs'] as Json[];
  if (!verbs.includes(claim['verb']!)) return false;
  const { proofs: _, ...core } = data;
  if (isObject(core['st'] ?? null)) core['st'] = withoutSig(core['st'] as JsonObject);
  if (isObject(core['revocationInfo'] ?? null)) core['revocationInfo'] = { reason: (core['revocationInfo'] as JsonObject)['reason']! };
  const parts = [before.address, canonical(claim), canonical(core), canonical(relations)];
  const digest = sha512(concat(utf8('sealtide/bind/1\0'), ...parts.map(sized)));
  const demanded = positions(digest, pool.challenges.size, pool.config['stBind'] as number);
  const ids = [...pool.challenges.keys()];
  if (demanded.length !== solutions.length) return false;
  const hash = pool.config['algo'] === 'SHA-512' ? sha512 : sha256;
  return solutions.every(({ id, value }, at) => {
    if (id !== ids[demanded[at]!]) return false;
    let text = value;
    for (let round = 0; round < (pool.config['rounds'] as number); round++) text = hex(hash(utf8(id + text + id)));
    return text === pool.challenges.get(id);
  });
}

/** The first `count` different positions below `size` that a digest names. */
function positions(digest: Uint8Array, size: number, count: number): number[] {
  const found = new Set<number>();
  for (let block = 0; found.size < Math.min(count, size); block++) {
    const number = new Uint8Array(4);
    new DataView(number.buffer).setUint32(0, block);
    const words = sha512(concat(digest, number));
    for (let at = 0; at < words.length && found.size < count; at += 2) found.add(((words[at]! << 8) | words[at + 1]!) % size);
  }
  return [...found];
}

/** All pools but the one that was used are as they were, and that one is filled anew in the same way. */
function isReplenished(before: Standing, pools: Pool[], used: Pool): boolean {
  return pools.every((pool, at) => {
    const old = before.pools[at]!;
    if (pool.id !== old.id) return false;
    return pool.id === used.id ? canonical([pool.config]) === canonical([old.config]) : pool.text === old.text;
  });
}

function readPools(data: JsonObject, isNew: boolean): Pool[] | undefined {
  const pools = list(data['challengePools'] ?? null, POOLS.length, readPool);
  if (pools?.length !== POOLS.length || !pools.every((pool, at) => isOwnerPool(pool, POOLS[at]!))) return undefined;
  const ids = pools.flatMap(({ challenges }) => [...challenges.keys()]);
  return !isNew || new Set(ids).size === ids.length ? pools : undefined;
}

function readPool(value: Json): Pool | undefined {
  const object = exactly(value, ['id', 'config', 'challenges', 'bindingMap']);
  if (!object || !isObject(object['challenges']!) || !isObject(object['config']!)) return undefined;
  const entries = Object.entries(object['challenges']);
  const challenges = new Map<string, string>();
  const buckets: Record<string, string[]> = {};
  for (const [id, entry] of entries) {
    const it = exactly(entry, ['type', 'hash']);
    if (!/^[0-9a-f]{16}$/.test(id) || it?.['type'] !== 'hash-reveal-v1' || typeof it['hash'] !== 'string') return undefined;
    challenges.set(id, it['hash']);
    (buckets[id[0]!] ??= []).push(id);
  }
  if (JSON.stringify(object['bindingMap']) !== JSON.stringify(buckets)) return undefined;
  return { id: String(object['id']), config: object['config'], challenges, text: JSON.stringify(value) };
}

function isOwnerPool({ id, config, challenges }: Pool, of: (typeof POOLS)[number]): boolean {
  const names = ['type', 'salt', 'allowedVerbs', 'behavior', 'algo', 'rounds', 'stBind'];
  const behavior = exactly(exactly(config, names)?.['behavior'] ?? null, [
    'size', 'replenish', 'selectSequentially', 'selectRandomly', 'targetBindingChars',
  ]);
  if (!behavior || id !== of.id || config['salt'] !== id || config['type'] !== 'hash-reveal-v1') return false;
  const [size, bind, rounds, algo] = [challenges.size, config['stBind'], config['rounds'], config['algo']];
  const isWhole = (value: Json | undefined, from: number, to: number): boolean =>
    typeof value === 'number' && Number.isInteger(value) && value >= from && value <= to;
  const digits = algo === 'SHA-256' ? 64 : algo === 'SHA-512' ? 128 : 0;
  const selects = ['selectSequentially', 'selectRandomly', 'targetBindingChars'].some((name) => behavior[name] !== 0);
  return (
    JSON.stringify(config['allowedVerbs']) === JSON.stringify(of.verbs) &&
    behavior['replenish'] === of.replenish && !selects &&
    behavior['size'] === size && size >= of.least && size <= POOL_SIZE_MAX && (size & (size - 1)) === 0 &&
    isWhole(bind, 32, 64) && isWhole(rounds, 1, 10_000) &&
    [...challenges.values()].every((hash) => hash.length === digits && /^[0-9a-f]*$/.test(hash))
  );
}

function readProof(data: JsonObject): Proof | undefined {
  const [proof] = list(data['proofs'] ?? null, 1, (it) => exactly(it, ['claim', 'solutions', 'requiredChallengeIds'])) ?? [];
  const claim = proof && (exactly(proof['claim']!, ['target', 'verb']) ?? exactly(proof['claim']!, ['target', 'verb', 'scope']));
  const solutions = proof && list(proof['solutions']!, SOLUTIONS_MAX, (it) => {
    const solution = exactly(it, ['type', 'poolId', 'challengeId', 'value']);
    const [pool, id, value] = ['poolId', 'challengeId', 'value'].map((name) => solution?.[name]);
    if (typeof pool !== 'string' || typeof id !== 'string' || typeof value !== 'string' || value.length > 128) return undefined;
    return solution!['type'] === 'hash-reveal-v1' ? { pool, id, value } : undefined;
  });
  const ids = proof && list(proof['requiredChallengeIds']!, SOLUTIONS_MAX, string);
  const pool = solutions?.[0]?.pool;
  if (!claim || !Object.values(claim).every((it) => typeof it === 'string') || !solutions || pool === undefined) return undefined;
  const isOne = solutions.every((solution, at) => solution.pool === pool && solution.id === ids?.[at]);
  return isOne && ids?.length === solutions.length ? { claim, pool, solutions } : undefined;
}

/** Whether `key` signed the frame, and its block says so. */
function isSigned(data: JsonObject, previous: string, relations: unknown, key: Bytes): boolean {
  const block = blockOf(data);
  const signature = fromBase64url(block?.['sig'], ML_DSA_SIGNATURE_BYTES);
  const isWell = block?.['v'] === 1 && block['alg'] === 'ML-DSA-87' && block['kid'] === hex(sha256(key)).slice(0, 32);
  if (!block || !signature || !isWell) return false;
  const content = concat(sized(previous), sized(canonical({ ...data, st: withoutSig(block) })), sized(canonical(relations)));
  return verifyMlDsa87(key, signedMessage('keystone1 frame', content), signature);
}

function blockOf(data: JsonObject): JsonObject | undefined {
  const st = data['st'] ?? null;
  return exactly(st, ['alg', 'kid', 'sig', 'v']) ?? exactly(st, ['alg', 'kid', 'pk', 'sig', 'v']);
}

function withoutSig({ sig: _, ...rest }: JsonObject): JsonObject {
  return rest;
}

function idsOf({ pools }: Standing): string[] {
  return pools.flatMap(({ challenges }) => [...challenges.keys()]);
}
