import { utf8, text as readText, type Bytes } from './bytes.js';

/** Thrown by {@link CborReader}. `short`: the bytes end too early, and more of them might help. */
export class CborError extends Error {
  /** Whether more bytes might help. */
  readonly short: boolean;

  constructor(short: boolean) {
    super(short ? 'the bytes end too early' : 'this is not the one encoding');
    this.short = short;
  }
}

const TYPE = { unsigned: 0, bytes: 2, text: 3, array: 4 } as const;

/**
 * Reads deterministic CBOR (RFC 8949 §4.2.1): definite lengths, shortest heads. Nothing is copied; a length is believed only
 * when the bytes are there. Spec: gateway §9.1, ibgib §12.2.1.
 */
export class CborReader {
  /** Bytes that were read. */
  position = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    // `slice` of what is taken is a copy then; that of a Buffer of Node is none.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** Number of items of an array. */
  array(): number {
    return this.#head(TYPE.array);
  }

  /** An unsigned integer, at most 2^53 − 1. */
  unsigned(): number {
    return this.#head(TYPE.unsigned);
  }

  /** A byte string. */
  bytes(): Bytes {
    return this.#take(this.#head(TYPE.bytes));
  }

  /** A text; bytes that are no UTF-8 are refused. */
  text(): string {
    const found = readText(this.#take(this.#head(TYPE.text)));
    if (found === undefined) throw new CborError(false);
    return found;
  }

  #take(length: number): Bytes {
    const end = this.position + length;
    if (end > this.#bytes.length) throw new CborError(true);
    const taken = this.#bytes.subarray(this.position, end) as Bytes;
    this.position = end;
    return taken;
  }

  #head(type: number): number {
    const first = this.#take(1)[0]!;
    if (first >> 5 !== type) throw new CborError(false);
    const small = first & 31;
    if (small < 24) return small;
    if (small > 27) throw new CborError(false);
    const width = 1 << (small - 24);
    const value = this.#take(width).reduce((sum, byte) => sum * 256 + byte, 0);
    const least = width === 1 ? 24 : 2 ** (4 * width);
    if (value < least || value > Number.MAX_SAFE_INTEGER) throw new CborError(false);
    return value;
  }
}

function head(type: number, value: number): Bytes {
  if (value < 24) return Uint8Array.of((type << 5) | value);
  const width = value < 2 ** 8 ? 1 : value < 2 ** 16 ? 2 : value < 2 ** 32 ? 4 : 8;
  const bytes = new Uint8Array(1 + width);
  bytes[0] = (type << 5) | (24 + Math.log2(width));
  for (let at = width, rest = value; at > 0; at--, rest = Math.floor(rest / 256)) bytes[at] = rest % 256;
  return bytes;
}

/** The parts of a deterministic CBOR text, to be put one behind the other. */
export const cbor = {
  /** The head of an array; its items follow. */
  array: (count: number): Bytes[] => [head(TYPE.array, count)],
  /** An unsigned integer. */
  unsigned: (value: number): Bytes[] => [head(TYPE.unsigned, value)],
  /** A byte string. */
  bytes: (bytes: Uint8Array): Uint8Array[] => [head(TYPE.bytes, bytes.length), bytes],
  /** A text. */
  text: (text: string): Uint8Array[] => {
    const bytes = utf8(text);
    return [head(TYPE.text, bytes.length), bytes];
  },
};
