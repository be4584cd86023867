import { sha256 } from '@noble/hashes/sha2.js';
import { concat, utf8 } from '../encoding/bytes.js';
import { hex } from '../encoding/hex.js';
import { IbGibError, PRIMITIVE_GIB, splitAddress } from './address.js';

/** A record as JavaScript holds it. `data` is any JSON value, or bytes. Other members do not count. Spec: ibgib §1.1. */
export interface IbGib {
  ib: string;
  gib?: string;
  data?: unknown;
  rel8ns?: Record<string, string[] | null | undefined> | null;
}

/** The parts of a hash, and what was hashed. */
export interface HashParts {
  hasData: boolean;
  hasRel8ns: boolean;
  /** The text of the data; `undefined` without data, and for bytes. */
  canonData?: string;
  /** The text of the relations; `undefined` without. */
  canonRel8ns?: string;
  ibHash: string;
  rel8nsHash: string;
  dataHash: string;
  /** Upper-case hex; empty for an empty ib and nothing else. */
  hash: string;
}

/** The hash `sha256v1` of a record and its parts. Gibs use the empty salt. Spec: ibgib §2.1. */
export function sha256v1(record: IbGib, salt = ''): HashParts {
  const { ib, data, rel8ns } = record;
  const [withRel8ns, withData] = [hasRel8ns(rel8ns), hasData(data)];
  const canonRel8ns = withRel8ns ? canonical(rel8ns) : undefined;
  const canonData = withData && !(data instanceof Uint8Array) ? canonical(data) : undefined;
  const ibHash = hashText(salt + ib);
  const rel8nsHash = canonRel8ns === undefined ? '' : hashText(salt + canonRel8ns);
  let dataHash = canonData === undefined ? '' : hashText(salt + canonData);
  if (withData && data instanceof Uint8Array) dataHash = upperHex(concat(utf8(salt), data));
  const hash = hashText(salt + ibHash + rel8nsHash + dataHash);
  return {
    hasData: withData,
    hasRel8ns: withRel8ns,
    ...(canonData === undefined ? {} : { canonData }),
    ...(canonRel8ns === undefined ? {} : { canonRel8ns }),
    ibHash,
    rel8nsHash,
    dataHash,
    hash,
  };
}

/** Whether relations are hashed: one of them is not empty. Spec: ibgib §2.1. */
export function hasRel8ns(rel8ns: IbGib['rel8ns']): boolean {
  return Object.values(rel8ns ?? {}).some((list) => Boolean(list) && list!.length > 0);
}

/** Whether data is hashed: not absent, `null`, `0`, `NaN`, `false`, `""`, `{}` or `[]`; bytes always. Spec: ibgib §2.1. */
export function hasData(data: unknown): boolean {
  if (data instanceof Uint8Array) return true;
  if (typeof data === 'object' && data !== null) return Object.keys(data).length > 0;
  return Boolean(data);
}

/** The text that is hashed for a value: ECMAScript JSON of its normal form. Spec: ibgib §2.2, §2.3. */
export function canonical(value: unknown): string {
  return JSON.stringify(normal(value));
}

/** Members in order of their UTF-16 code units, indices first; arrays as they are, with what stands in them. Spec: ibgib §2.2. */
function normal(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const copy: Record<string, unknown> = {};
  const members = value as Record<string, unknown>;
  for (const name of Object.keys(members).sort()) {
    // The original loses such a member, because setting it changes the prototype.
    if (name !== '__proto__' && members[name] !== undefined) copy[name] = normal(members[name]);
  }
  return copy;
}

/**
 * The gib of a record. Spec: ibgib §2.4.
 *
 * @param expectsTjp the caller knows that it is in a timeline
 * @throws IbGibError when it is in a timeline and names no first frame
 */
export function gibOf(record: IbGib, expectsTjp = false): string {
  const { hash } = sha256v1(record);
  const isTjp = Boolean((record.data as { isTjp?: unknown } | null | undefined)?.isTjp);
  const tjp = record.rel8ns?.['tjp'];
  const hasTjp = Boolean(tjp) && tjp!.length > 0;
  if (!expectsTjp && !isTjp && !hasTjp) return hash;
  if (!tjp) {
    if (isTjp) return hash;
    throw new IbGibError('has_tjp_but_none');
  }
  if (tjp.length === 0) throw new IbGibError('has_tjp_but_empty');
  const last = tjp.at(-1);
  if (!last) throw new IbGibError('tjp_first_falsy');
  return isTjp ? hash : `${hash}.${splitAddress(last).gib}`;
}

/** Whether a record is in a timeline. Spec: ibgib §1.4. */
export function hasTjp(record: IbGib): boolean {
  const isTjp = Boolean((record.data as { isTjp?: unknown } | null | undefined)?.isTjp);
  if (isTjp || (record.rel8ns?.['tjp']?.length ?? 0) > 0) return true;
  if (ancestors(record).some((address) => ['fork^gib', 'mut8^gib', 'rel8^gib'].includes(address))) return false;
  return record.gib?.includes('.') ?? false;
}

/** Whether a record is a dna. Spec: ibgib §1.6. */
export function isDna(record: IbGib): boolean {
  return ancestors(record).some((address) => ['fork^gib', 'mut8^gib', 'rel8^gib', 'plan^gib'].includes(address));
}

function ancestors(record: IbGib): string[] {
  return record.rel8ns?.['ancestor'] ?? [];
}

/** Whether a gib is that of a primitive: no integrity, any content. */
export function isPrimitive(gib: string | undefined): boolean {
  return gib === PRIMITIVE_GIB;
}

function hashText(text: string): string {
  return text === '' ? '' : upperHex(utf8(text));
}

function upperHex(bytes: Uint8Array): string {
  return hex(sha256(bytes)).toUpperCase();
}
