/** Bytes, as everything here gives them; any `Uint8Array` is taken. */
export type Bytes = Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** UTF-8 of a text; a lone surrogate becomes U+FFFD. */
export function utf8(text: string): Bytes {
  return encoder.encode(text) as Bytes;
}

/** The text of UTF-8 bytes, a byte order mark kept; `undefined` for bytes that are no UTF-8. */
export function text(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * A copy of bytes that somebody gave: what is checked and what counts afterwards are the same ones, whatever he writes into his, and
 * WebCrypto takes them, which takes no memory that threads share. `slice` of a Buffer of Node would be no copy.
 */
export function copied(bytes: Uint8Array): Bytes {
  return new Uint8Array(bytes);
}

/** All parts, one behind the other. */
export function concat(...parts: readonly Uint8Array[]): Bytes {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Whether two byte strings are equal; takes the same time wherever they differ. */
export function equal(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let at = 0; at < left.length; at++) difference |= left[at]! ^ right[at]!;
  return difference === 0;
}

/** Orders byte strings: negative when `left` comes first. */
export function compare(left: Uint8Array, right: Uint8Array): number {
  const shared = Math.min(left.length, right.length);
  for (let at = 0; at < shared; at++) if (left[at] !== right[at]) return left[at]! - right[at]!;
  return left.length - right.length;
}

/** The bytes of a text behind their number, 8 bytes big-endian: what is hashed of several texts. */
export function sized(text: string): Bytes {
  const bytes = utf8(text);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(bytes.length));
  return concat(length, bytes);
}
