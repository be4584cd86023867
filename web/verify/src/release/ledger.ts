import { sha256 } from '@noble/hashes/sha2.js';
import { fromBase64 } from '../encoding/base64.js';
import { utf8, type Bytes } from '../encoding/bytes.js';
import { canonicalJson } from '../encoding/canonical.js';
import { hex } from '../encoding/hex.js';
import { isObject, member, type Json, type JsonObject } from '../encoding/json.js';
import { algorithm, kidOf, PublicPair, readSignature, type Algorithm, type Signature } from '../signature/pair.js';
import { boolean, exactly, hex32, integer, keyDigits, keyVersion, list, Members, string, time, words } from './members.js';
import { readNodeId } from './node-id.js';

/** What a record changes. Spec: gateway §7.6. */
export const ACTIONS = ['init', 'add', 'rotate', 'rollback', 'force', 'expire', 'retire', 'destroy', 'recover'] as const;
/** See {@link ACTIONS}. */
export type Action = (typeof ACTIONS)[number];
/** What a key version may do. */
export const VERSION_STATES = ['prepared', 'active', 'verify-only', 'expired', 'destroyed', 'compromised'] as const;
/** See {@link VERSION_STATES}. */
export type VersionState = (typeof VERSION_STATES)[number];
/** Until when signatures of a version count, ms; a date that nobody can read counts as over. Spec: gateway §7.9. */
export type Deadline = number | 'unreadable';

/** Versions in one ledger, at most. */
export const VERSIONS_MAX = 64;
const CHANNELS_MAX = 1024;
/** The node's signature and those of two pairs. */
const SIGNATURES_MAX = 5;

/** The last manifest of a channel that a version which was given up signed in good faith. Spec: gateway §7.9. */
export interface LastGood {
  registry: string;
  channel: string;
  seq: number;
  manifestSha256: string;
}

interface KeyEntry {
  version: number;
  alg: Algorithm;
  publicKey: Bytes;
}

/** One record of the key ledger; nothing of it is proven until a trust follows it. Spec: gateway §7.6. */
export interface LedgerRecord {
  /** Address of the first frame of the ledger; none in the first record. */
  ledger: string | null;
  epoch: number;
  /** SHA-256 of the signed bytes of the record before, hex. */
  prev: string | null;
  action: Action;
  /** Number of the version that signs from here on. */
  active: number;
  states: ReadonlyMap<number, VersionState>;
  notAfter: ReadonlyMap<number, Deadline>;
  /** Whether no pair, or more than one key of a kind, is named for a version: then `undefined`. */
  pairOf(version: number): PublicPair | undefined;
  compromised: ReadonlyMap<number, LastGood[]>;
  /** Text form of the node that keeps the ledger. */
  node: string;
  signatures: Signature[];
  /** The bytes that were signed. */
  bytes: Bytes;
  /** Their SHA-256, hex. */
  sha256: string;
}

/**
 * Reads a record with its `signatures`. Its signed bytes are the RFC 8785 form of what was received, so nothing can hide in a
 * member.
 *
 * @throws Refused `not_a_bundle`
 */
export function readLedgerRecord(value: Json | undefined, what: string): LedgerRecord {
  const members = new Members(isObject(value) ? value : {}, 'not_a_bundle', what);
  const signatures = members.take('signatures', (it) => list(it, SIGNATURES_MAX, readSignature));
  const { signatures: _, ...rest } = value as JsonObject;
  const text = canonicalJson(rest);
  if (text === undefined) throw members.refuse('its text');
  members.take('schema', (it) => (it === 'sealtide/keyring/1' ? it : undefined));
  const bytes = utf8(text);
  const keys = members.take('keys', (it) => list(it, 2 * VERSIONS_MAX, readKey));
  const record: LedgerRecord = {
    ledger: members.optional('ledger', string),
    epoch: members.take('epoch', integer),
    prev: members.optional('prev', hex32),
    action: members.take('action', (it) => ACTIONS.find((action) => action === it)),
    active: members.take('keyVersion', keyDigits),
    states: members.take('states', (it) => byVersion(it, readState)),
    notAfter: members.take('notAfter', (it) => byVersion(it, readDeadline)),
    pairOf: (version) => pairOf(keys, version),
    compromised: members.take('compromised', readCompromised),
    node: members.take('node', (it) => (typeof it === 'string' && readNodeId(it) ? it : undefined)),
    signatures,
    bytes,
    sha256: hex(sha256(bytes)),
  };
  members.optional('previous', keyDigits);
  members.take('forced', boolean);
  members.take('auto', boolean);
  members.take('rotationTimestamp', time);
  members.take('by', words);
  members.take('reason', words);
  members.end();
  return record;
}

/** The state of a word. */
export function readState(value: Json): VersionState | undefined {
  return VERSION_STATES.find((state) => state === value);
}

/** Whether a deadline has come. */
export function isOver(deadline: Deadline, wallMs: number): boolean {
  return deadline === 'unreadable' || wallMs >= deadline;
}

function readDeadline(value: Json): Deadline {
  return integer(value) ?? time(value) ?? 'unreadable';
}

/** Reads the form `{"registry","channel","seq","manifestSha256"}`. */
export function readLastGood(value: Json): LastGood | undefined {
  const object = exactly(value, ['registry', 'channel', 'seq', 'manifestSha256']);
  if (!object) return undefined;
  const [registry, channel] = [words(object['registry']!), words(object['channel']!)];
  const [seq, manifestSha256] = [integer(object['seq']!), hex32(object['manifestSha256']!)];
  if (registry === undefined || channel === undefined || seq === undefined || manifestSha256 === undefined) return undefined;
  return { registry, channel, seq, manifestSha256 };
}

function readCompromised(value: Json): Map<number, LastGood[]> | undefined {
  const rows = list(value, VERSIONS_MAX, (entry): [number, LastGood[]] | undefined => {
    const object = exactly(entry, ['version', 'channels']);
    const version = object && keyVersion(object['version']!);
    const channels = object && list(object['channels']!, CHANNELS_MAX, readLastGood);
    return version && channels ? [version, channels] : undefined;
  });
  const found = new Map(rows);
  return rows && found.size === rows.length ? found : undefined;
}

function readKey(value: Json): KeyEntry | undefined {
  const object = exactly(value, ['version', 'alg', 'kid', 'publicKey']);
  if (!object) return undefined;
  const [version, alg, spelled] = [keyVersion(object['version']!), algorithm(object['alg']!), string(object['publicKey']!)];
  const publicKey = spelled === undefined ? undefined : fromBase64(spelled);
  const isNamed = publicKey && member(object, 'kid') === kidOf(publicKey);
  return version && alg && isNamed ? { version, alg, publicKey } : undefined;
}

function pairOf(keys: readonly KeyEntry[], version: number): PublicPair | undefined {
  const [first, second, ...more] = keys.filter((key) => key.version === version);
  if (first?.alg !== 'ML-DSA-87' || second?.alg !== 'Ed25519' || more.length > 0) return undefined;
  return PublicPair.of(first.publicKey, second.publicKey);
}

function byVersion<T>(value: Json, read: (value: Json) => T | undefined): Map<number, T> | undefined {
  if (!isObject(value) || Object.keys(value).length > VERSIONS_MAX) return undefined;
  const found = new Map<number, T>();
  for (const [name, item] of Object.entries(value)) {
    const [version, it] = [keyVersion(name), read(item)];
    if (version === undefined || it === undefined) return undefined;
    found.set(version, it);
  }
  return found;
}
