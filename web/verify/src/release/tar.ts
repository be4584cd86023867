import { utf8, text as readText, type Bytes, concat } from '../encoding/bytes.js';
import type { ReleaseFile } from './manifest.js';

/** Bytes of a block of a tar. */
const BLOCK = 512;
/** Bytes of a name in a header. */
const NAME_MAX = 100;
/** From this size on a size is written in base 256. */
const OCTAL_SIZE_END = 8 ** 11;

/** What stands behind the last file: two empty blocks. */
export const TAR_END = new Uint8Array(2 * BLOCK);

/**
 * What stands before the bytes of a file in the one tar of its release: a GNU header, and before that its name where it is longer
 * than 100 bytes. Owner 0, empty names, time 0. Spec: gateway §9.1.
 */
export function tarHeader({ path, size, executable }: Pick<ReleaseFile, 'path' | 'size' | 'executable'>): Bytes {
  const name = utf8(path);
  const own = header(shortened(name), size, executable ? 0o755 : 0o644, '0');
  if (name.length <= NAME_MAX) return own;
  const long = header(utf8('././@LongLink'), name.length + 1, 0o644, 'L');
  return concat(long, name, Uint8Array.of(0), tarPadding(name.length + 1), own);
}

/** Zero bytes behind a file, so that the next header begins with a block. */
export function tarPadding(size: number): Uint8Array {
  return TAR_END.subarray(0, (BLOCK - (size % BLOCK)) % BLOCK);
}

function header(name: Uint8Array, size: number, mode: number, type: string): Bytes {
  const bytes = new Uint8Array(BLOCK);
  const octal = (at: number, width: number, value: number): void => {
    bytes.set(utf8(value.toString(8).padStart(width - 1, '0')), at);
  };
  bytes.set(name, 0);
  octal(100, 8, mode);
  octal(108, 8, 0);
  octal(116, 8, 0);
  if (size < OCTAL_SIZE_END) octal(124, 12, size);
  else bytes.set(base256(size), 124);
  octal(136, 12, 0);
  bytes[156] = type.charCodeAt(0);
  bytes.set(utf8('ustar  \0'), 257);
  // The sum is taken with spaces where it will stand.
  octal(148, 8, bytes.reduce((sum, byte) => sum + byte, 8 * 0x20));
  return bytes;
}

/** A size in twelve bytes, big-endian, the first bit set. */
function base256(size: number): Uint8Array {
  const bytes = new Uint8Array(12);
  for (let at = 11, rest = size; at > 0; at--, rest = Math.floor(rest / 256)) bytes[at] = rest % 256;
  bytes[0] = 0x80;
  return bytes;
}

/** As much of a name as a header holds, in whole characters. */
function shortened(name: Bytes): Uint8Array {
  if (name.length <= NAME_MAX) return name;
  let end = NAME_MAX;
  while (readText(name.subarray(0, end)) === undefined) end--;
  return name.subarray(0, end);
}
