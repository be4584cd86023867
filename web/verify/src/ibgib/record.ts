import { sha256 } from '@noble/hashes/sha2.js';
import { concat, copied, text as readText, utf8, type Bytes } from '../encoding/bytes.js';
import { cbor, CborError, CborReader } from '../encoding/cbor.js';
import { hex } from '../encoding/hex.js';
import { isObject, readJson, RECORD_LIMITS, type Json, type JsonObject } from '../encoding/json.js';
import { Refused } from '../refused.js';
import { joinAddress, splitAddress, timelineGib, validateAddress } from './address.js';
import { isGoodBinary } from './binary.js';
import { canonical, gibOf, hasData, hasRel8ns, isPrimitive, sha256v1, type IbGib } from './hash.js';

/** Bytes of an encoded record, at most: 768 KiB. Spec: ibgib §12.2.2. */
export const RECORD_BYTES_MAX = 786_432;
const IB_BYTES_MAX = 4096;
const GIB_SEGMENTS_MAX = 4;
const KIND = { none: 0, json: 1, bytes: 2 } as const;

/** What a record is in its timeline. */
export interface Frame {
  /** Address of the first frame. */
  tjp: string;
  /** Its counter; 0 for the first. */
  n: number;
  /** Frames before it in this timeline, oldest first. */
  past: string[];
}

/** A record that passed strict acceptance. */
export interface VerifiedRecord {
  address: string;
  record: IbGib & { gib: string };
  /** SHA-256 over address and content: fixes the record, as the address alone does not. Hex. Spec: ibgib §12.2. */
  sid: string;
  /** What it is in its timeline; `null` for stones. */
  frame: Frame | null;
  /** The one encoding. */
  encoded: Bytes;
}

interface Parts {
  ib: string;
  gib: string;
  kind: number;
  data: Bytes;
  relations: string;
}

/**
 * Reads an encoded record and accepts it strictly. Spec: ibgib §12.2.1, §12.2.2.
 *
 * @throws Refused `too_large`, `bad_json`, `not_canonical`, `bad_addr`, `primitive`, `gib_mismatch`, `bad_rel`, `bad_tjp`, `bad_n`,
 *   `bad_bin`
 */
export function readRecord(given: Uint8Array): VerifiedRecord {
  if (given.length > RECORD_BYTES_MAX) throw refuse('too_large');
  const encoded = copied(given);
  const parts = readParts(encoded);
  const data = readData(parts);
  const relations = readRelations(parts.relations);
  checkStrictAddress(parts);
  const record: IbGib & { gib: string } = { ib: parts.ib, gib: parts.gib };
  if (data !== undefined) record.data = data;
  if (relations) record.rel8ns = relations as Exclude<IbGib['rel8ns'], undefined>;
  checkGib(record, relations);
  const address = joinAddress(record);
  const lists = checkRelations(address, relations);
  const frame = readFrame(record, address, lists);
  if (!isGoodBinary(record.ib, record.data, lists)) throw refuse('bad_bin');
  return { address, record, sid: sidOf(parts), frame, encoded };
}

/**
 * The one encoding of a record: CBOR `[ib, gib, kind, data, relations]`. Without `gib`, the right one is computed.
 * Spec: ibgib §12.2.1.
 */
export function encodeRecord(record: IbGib): Bytes {
  const { ib, gib, kind, data, relations } = partsOf(record);
  const body = kind === KIND.bytes ? cbor.bytes(data) : cbor.text(readText(data)!);
  return concat(...cbor.array(5), ...cbor.text(ib), ...cbor.text(gib), ...cbor.unsigned(kind), ...body, ...cbor.text(relations));
}

/** The strong id of a record, hex. Spec: ibgib §12.2. */
export function sid(record: IbGib): string {
  return sidOf(partsOf(record));
}

/**
 * The order key of an address: all frames of a timeline share one, so a timeline is one neighbourhood. Spec: ibgib §12.2.1.
 */
export function orderKey(address: string, inTimeline: boolean): bigint {
  const last = splitAddress(address).gib.split('.').at(-1)!;
  const digits = /^[0-9a-fA-F]{64}$/.test(last) ? last : hex(sha256(utf8(last)));
  const key = (BigInt(`0x${digits.slice(0, 16)}`) >> 1n) | (inTimeline ? 0n : 1n << 63n);
  return key === 2n ** 64n - 1n ? key - 1n : key;
}

function partsOf(record: IbGib): Parts {
  const { ib, data, rel8ns } = record;
  const gib = record.gib ?? gibOf(record);
  const relations = hasRel8ns(rel8ns) ? canonical(rel8ns) : '';
  if (!hasData(data)) return { ib, gib, kind: KIND.none, data: new Uint8Array(0), relations };
  if (data instanceof Uint8Array) return { ib, gib, kind: KIND.bytes, data: data as Bytes, relations };
  return { ib, gib, kind: KIND.json, data: utf8(canonical(data)), relations };
}

function sidOf({ ib, gib, kind, data, relations }: Parts): string {
  const sized = (bytes: Uint8Array): Bytes => {
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(bytes.length));
    return concat(length, bytes);
  };
  const content = [Uint8Array.of(kind), sized(data), Uint8Array.of(relations === '' ? 0 : 1), sized(utf8(relations))];
  return hex(sha256(concat(utf8('sealtide/sid/1\0'), sized(utf8(joinAddress({ ib, gib }))), ...content)));
}

function readParts(encoded: Bytes): Parts {
  const reader = new CborReader(encoded);
  try {
    if (reader.array() !== 5) throw refuse('not_canonical');
    const [ib, gib, kind] = [reader.text(), reader.text(), reader.unsigned()];
    const data = kind === KIND.bytes ? reader.bytes().slice() : utf8(reader.text());
    const relations = reader.text();
    if (kind > KIND.bytes || reader.position !== encoded.length) throw refuse('not_canonical');
    return { ib, gib, kind, data, relations };
  } catch (error) {
    throw error instanceof CborError ? refuse('not_canonical') : error;
  }
}

function readData({ kind, data }: Parts): unknown {
  if (kind === KIND.bytes) return data;
  const text = readText(data)!;
  if (kind === KIND.none) {
    if (text !== '') throw refuse('not_canonical');
    return undefined;
  }
  const value = readCanonical(text);
  if (!hasData(value)) throw refuse('not_canonical');
  return value;
}

function readRelations(text: string): JsonObject | undefined {
  if (text === '') return undefined;
  const value = readCanonical(text);
  if (!isObject(value)) throw refuse('bad_rel');
  if (!hasRel8ns(value as NonNullable<IbGib['rel8ns']>)) throw refuse('not_canonical');
  return value;
}

function readCanonical(text: string): Json {
  const value = readJson(text, RECORD_LIMITS);
  if (value === undefined) throw refuse('bad_json');
  if (canonical(value) !== text) throw refuse('not_canonical');
  return value;
}

function checkStrictAddress({ ib, gib }: Parts): void {
  const segments = gib.split('.');
  const isOdd = utf8(ib).length > IB_BYTES_MAX || /[\u0000-\u001f]/.test(ib) || segments.length > GIB_SEGMENTS_MAX;
  if (isOdd || segments.some((it) => it.length === 32) || !isValid(joinAddress({ ib, gib }))) throw refuse('bad_addr');
  if (isPrimitive(gib)) throw refuse('primitive');
}

function isValid(address: string): boolean {
  try {
    return validateAddress(address).length === 0;
  } catch {
    return false;
  }
}

function checkGib(record: IbGib & { gib: string }, relations: JsonObject | undefined): void {
  // Relations that are no lists of texts are refused behind this, and need no first frame for their hash.
  const tjp = relations && Object.hasOwn(relations, 'tjp') ? relations['tjp'] : undefined;
  const isOdd = tjp !== undefined && (!Array.isArray(tjp) || tjp.some((it) => typeof it !== 'string'));
  let expected: string;
  try {
    expected = isOdd ? sha256v1(record).hash : gibOf(record);
  } catch {
    throw refuse('gib_mismatch');
  }
  if (isOdd ? !record.gib.startsWith(expected) : record.gib !== expected) throw refuse('gib_mismatch');
}

function checkRelations(address: string, relations: JsonObject | undefined): Map<string, string[]> {
  const lists = new Map<string, string[]>();
  for (const [name, list] of Object.entries(relations ?? {})) {
    if (!Array.isArray(list)) throw refuse('bad_rel');
    for (const it of list) if (typeof it !== 'string' || it === address || !isValid(it)) throw refuse('bad_rel');
    lists.set(name, list as string[]);
  }
  return lists;
}

function readFrame(record: IbGib & { gib: string }, address: string, lists: Map<string, string[]>): Frame | null {
  const list = (name: string): string[] => lists.get(name) ?? [];
  const isTjp = isObject(record.data as Json) && Boolean((record.data as JsonObject)['isTjp']);
  const tjps = list('tjp');
  if (tjps.length === 0 && !isTjp) return null;
  // The gib says "first frame", the relation says "frame of another one".
  if (tjps.length > 0 && isTjp) throw refuse('bad_tjp');
  const tjp = tjps.at(-1) ?? address;
  const gibs = tjps.map((it) => splitAddress(it).gib);
  if (gibs.some(isPrimitive) || (!isTjp && timelineGib(record.gib) !== splitAddress(tjp).gib)) throw refuse('bad_tjp');
  // A fork may keep the past of what it was forked from; that is no past of this timeline.
  const from = list('ancestor').map((it) => splitAddress(it).gib).filter((gib) => !isPrimitive(gib)).map(timelineGib);
  const past: string[] = [];
  for (const it of list('past')) {
    const timeline = timelineGib(splitAddress(it).gib);
    if (tjps.includes(it) || gibs.includes(timeline)) past.push(it);
    else if (!from.includes(timeline)) throw refuse('bad_tjp');
  }
  if (!isObject(record.data as Json)) throw refuse('bad_n');
  const n = (record.data as JsonObject)['n'];
  const counts = typeof n === 'number' && Number.isSafeInteger(n) && n > 0;
  if (!counts && past.length > 0) throw refuse('bad_n');
  return { tjp, n: counts ? n : 0, past };
}

type RecordCode =
  'too_large' | 'bad_json' | 'not_canonical' | 'bad_addr' | 'primitive' | 'gib_mismatch' | 'bad_rel' | 'bad_tjp' | 'bad_n' | 'bad_bin';

function refuse(code: RecordCode): Refused {
  return new Refused(code, `the record is refused: ${code}`);
}
