import { concat, type Bytes } from '../encoding/bytes.js';

/** Where the bytes of a bundle come from. A stream is read once, piece by piece. */
export type BundleSource = Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;

/** Bytes of a source; `undefined` for a stream, which does not say. */
export function sizeOf(source: BundleSource): number | undefined {
  if (source instanceof Uint8Array || source instanceof ArrayBuffer) return source.byteLength;
  return source instanceof Blob ? source.size : undefined;
}

/** Pieces of a source, in order. Whoever stops early must call `close`. */
export class Pieces {
  readonly #next: () => Promise<Uint8Array | undefined>;
  readonly #close: () => Promise<unknown>;

  constructor(source: BundleSource) {
    if (source instanceof Uint8Array || source instanceof ArrayBuffer) {
      let whole: Uint8Array | undefined = source instanceof Uint8Array ? source : new Uint8Array(source);
      this.#next = async () => {
        const piece = whole;
        whole = undefined;
        return piece;
      };
      this.#close = async () => undefined;
    } else if (source instanceof Blob || 'getReader' in source) {
      // Not every browser iterates over a stream.
      const reader = (source instanceof Blob ? source.stream() : source).getReader();
      this.#next = async () => (await reader.read()).value;
      this.#close = () => reader.cancel();
    } else {
      const iterator = source[Symbol.asyncIterator]();
      this.#next = async () => {
        const { value, done } = await iterator.next();
        return done ? undefined : value;
      };
      this.#close = async () => iterator.return?.();
    }
  }

  /** The next piece; `undefined` at the end. */
  next(): Promise<Uint8Array | undefined> {
    return this.#next();
  }

  /** At least `least` bytes from what was gathered and from what comes; fewer only at the end. */
  async gather(gathered: Bytes, least: number): Promise<Bytes> {
    const parts: Uint8Array[] = [gathered];
    let length = gathered.length;
    while (length < least) {
      const piece = await this.next();
      if (!piece) break;
      parts.push(piece);
      length += piece.length;
    }
    return parts.length === 1 ? gathered : concat(...parts);
  }

  /** Lets go of the source. */
  async close(): Promise<void> {
    // A source that failed cannot be closed either, and why it failed is known already.
    await this.#close().catch(() => undefined);
  }
}
