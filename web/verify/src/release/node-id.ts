import { sha256 } from '@noble/hashes/sha2.js';
import { equal, utf8, type Bytes } from '../encoding/bytes.js';

const PREFIX = 'stn1';
const DIGITS = 'abcdefghijklmnopqrstuvwxyz234567';
const CHECK_BYTES = 4;

/**
 * The 32 bytes of a node id, `stn1…`: base32 of the id and of a check. Case, spaces and hyphens are ignored; `undefined` for
 * anything else. Spec: link C.3.
 */
export function readNodeId(text: string): Bytes | undefined {
  const clean = text.replace(/[\s-]/gu, '').toLowerCase();
  if (!clean.startsWith(PREFIX)) return undefined;
  const bytes = fromBase32(clean.slice(PREFIX.length));
  if (bytes?.length !== 32 + CHECK_BYTES) return undefined;
  const id = bytes.slice(0, 32);
  return equal(bytes.subarray(32), check(id)) ? id : undefined;
}

/** The text form of a node id. */
export function writeNodeId(id: Uint8Array): string {
  let bits = '';
  for (const byte of [...id, ...check(id)]) bits += byte.toString(2).padStart(8, '0');
  const groups = bits.padEnd(Math.ceil(bits.length / 5) * 5, '0').match(/.{5}/g)!;
  return PREFIX + groups.map((group) => DIGITS[Number.parseInt(group, 2)]).join('');
}

function check(id: Uint8Array): Uint8Array {
  const before = utf8(`sealtide-text-v1\0${PREFIX}\0`);
  return sha256(Uint8Array.of(...before, ...id)).subarray(0, CHECK_BYTES);
}

/** Without padding; bits that say nothing must be zero. */
function fromBase32(text: string): Bytes | undefined {
  let bits = '';
  for (const digit of text) {
    const value = DIGITS.indexOf(digit);
    if (value < 0) return undefined;
    bits += value.toString(2).padStart(5, '0');
  }
  const over = bits.length % 8;
  if (over >= 5 || bits.slice(bits.length - over).includes('1')) return undefined;
  const bytes = bits.slice(0, bits.length - over).match(/.{8}/g) ?? [];
  return Uint8Array.from(bytes, (byte) => Number.parseInt(byte, 2));
}
