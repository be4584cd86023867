import { sha256 } from '@noble/hashes/sha2.js';
import { hex } from '../encoding/hex.js';
import { isObject, type Json } from '../encoding/json.js';
import { exactly, list, positive } from '../release/members.js';
import { splitAddress, validateAddress } from './address.js';

/** Bytes of a binary in one record, at most: 512 KiB. */
export const INLINE_BYTES_MAX = 524_288;
/** Bytes of a chunk, at most: 4 MiB. */
const CHUNK_BYTES_MAX = 4_194_304;
/** Entries of a list of chunks or pages, at most. */
const LIST_MAX = 4096;

/**
 * Whether a record with ib `bin <h> ` or `binpage` has the form that such a record must have; other ibs always do. That a page has the
 * size that its manifest tells needs the page, and is not looked at. Spec: ibgib §15.
 */
export function isGoodBinary(ib: string, data: unknown, rel8ns: ReadonlyMap<string, string[]>): boolean {
  if (ib === 'binpage') {
    const page = exactly(asJson(data), ['chunks']);
    return page !== undefined && chunksSum(page['chunks']!) !== undefined;
  }
  const h = /^bin ([^ ]*) $/s.exec(ib)?.[1];
  if (h === undefined) return true;
  if (data instanceof Uint8Array) return data.length <= INLINE_BYTES_MAX && h === hex(sha256(data));
  return isManifest(h, asJson(data), rel8ns.get('page') ?? []);
}

function isManifest(h: string, data: Json, pages: readonly string[]): boolean {
  const inner = exactly(data, ['bin'])?.['bin'];
  const name = isObject(inner) && Object.hasOwn(inner, 'pages') ? 'pages' : 'chunks';
  const bin = inner === undefined ? undefined : exactly(inner, ['v', 'size', 'hash', name]);
  if (bin?.['v'] !== 2 || bin['hash'] !== h || !isHash(h)) return false;
  const size = positive(bin['size']!);
  if (size === undefined || size <= INLINE_BYTES_MAX || (name === 'chunks' && pages.length > 0)) return false;
  return size === (name === 'pages' ? pagesSum(bin['pages']!, pages) : chunksSum(bin['chunks']!));
}

/** The sum of 1 to 4096 rows `[length, hash]`. */
function chunksSum(value: Json): number | undefined {
  return sum(value, CHUNK_BYTES_MAX, (hash) => typeof hash === 'string' && isHash(hash));
}

/** The sum of 1 to 4096 rows `[size, address]`; the relation names the same addresses, a repeated one once or each time. */
function pagesSum(value: Json, relation: readonly string[]): number | undefined {
  const named = new Set<string>();
  const total = sum(value, CHUNK_BYTES_MAX * LIST_MAX, (address) => {
    if (typeof address !== 'string' || !isPage(address)) return false;
    named.add(address);
    return true;
  });
  const wanted = new Set(relation);
  return named.size === wanted.size && [...named].every((it) => wanted.has(it)) ? total : undefined;
}

function sum(value: Json, most: number, isGood: (second: Json) => boolean): number | undefined {
  const sizes = list(value, LIST_MAX, (row) => {
    if (!Array.isArray(row) || row.length !== 2 || !isGood(row[1]!)) return undefined;
    const size = positive(row[0]!);
    return size !== undefined && size <= most ? size : undefined;
  });
  return sizes?.length ? sizes.reduce((total, size) => total + size, 0) : undefined;
}

function isPage(address: string): boolean {
  try {
    return validateAddress(address).length === 0 && splitAddress(address).ib === 'binpage';
  } catch {
    return false;
  }
}

function isHash(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** Absent data and bytes are no object either. */
function asJson(data: unknown): Json {
  return data === undefined || data instanceof Uint8Array ? null : (data as Json);
}
