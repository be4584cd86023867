import { Refused } from '../refused.js';

/** The largest window of a frame, bytes: what a decoder has to hold in memory. */
export const WINDOW_MAX = 2 ** 27;
const BLOCK_MAX = 2 ** 17;
const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];

/**
 * Walks over the blocks of a payload without decoding them (RFC 8878 §3.1.1): one zstd frame, no dictionary, a bounded window,
 * nothing behind it. A decoder gets a byte only after it passed here, so it never makes a second frame or a huge window.
 */
export class ZstdFrame {
  #pending: number[] = [];
  #step: 'header' | 'block' | 'content' | 'checksum' | 'end' = 'header';
  #skip = 0;
  #isLast = false;
  #hasChecksum = false;

  /**
   * Takes the next bytes.
   *
   * @throws Refused `payload`
   */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#step === 'end') throw refuse('something stands behind its end');
      if (this.#step === 'content') {
        const taken = Math.min(this.#skip, bytes.length - at);
        at += taken;
        this.#skip -= taken;
        if (this.#skip === 0) this.#afterBlock();
      } else {
        this.#pending.push(bytes[at++]!);
        this.#advance();
      }
    }
  }

  /**
   * There are no more bytes.
   *
   * @throws Refused `payload` when the frame goes on
   */
  finish(): void {
    if (this.#step !== 'end') throw refuse('it ends too early');
  }

  #advance(): void {
    if (this.#step === 'header') this.#header();
    else if (this.#step === 'block' && this.#pending.length === 3) this.#block();
    else if (this.#step === 'checksum' && this.#pending.length === 4) this.#step = 'end';
  }

  #header(): void {
    const found = this.#pending;
    const at = found.length - 1;
    if (at < 4) {
      if (found[at] !== MAGIC[at]) throw refuse('it is no zstd frame');
      return;
    }
    const flags = found[4]!;
    const isSingle = (flags & 0x20) !== 0;
    if ((flags & 0x08) !== 0 || (flags & 0x03) !== 0) throw refuse('its frame asks for what is not there');
    const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][flags >> 6]!;
    const length = 5 + (isSingle ? 0 : 1) + sizeBytes;
    if (found.length < length) return;
    // Two bytes count from 256.
    const size = littleEndian(found.slice(length - sizeBytes)) + (sizeBytes === 2 ? 256 : 0);
    const window = isSingle ? size : windowOf(found[5]!);
    if (window > WINDOW_MAX) throw refuse('its frame needs too much memory');
    this.#hasChecksum = (flags & 0x04) !== 0;
    this.#next('block');
  }

  #block(): void {
    const head = this.#pending[0]! | (this.#pending[1]! << 8) | (this.#pending[2]! << 16);
    const [type, size] = [(head >> 1) & 3, head >> 3];
    if (type === 3 || size > BLOCK_MAX) throw refuse('its frame holds a block that is none');
    this.#isLast = (head & 1) !== 0;
    // A block of one repeated byte holds that byte.
    this.#skip = type === 1 ? 1 : size;
    this.#next('content');
    if (this.#skip === 0) this.#afterBlock();
  }

  #afterBlock(): void {
    if (!this.#isLast) this.#next('block');
    else this.#next(this.#hasChecksum ? 'checksum' : 'end');
  }

  #next(step: 'block' | 'content' | 'checksum' | 'end'): void {
    this.#step = step;
    this.#pending = [];
  }
}

function windowOf(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function littleEndian(bytes: readonly number[]): number {
  return bytes.reduceRight((sum, byte) => sum * 256 + byte, 0);
}

function refuse(what: string): Refused {
  return new Refused('payload', `the payload: ${what}`);
}
