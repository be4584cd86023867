import { blake3 } from '@noble/hashes/blake3.js';
import { Decompress } from 'fzstd';
import { equal } from '../encoding/bytes.js';
import { hex } from '../encoding/hex.js';
import { Refused } from '../refused.js';
import type { Manifest, ReleaseFile } from './manifest.js';
import { TAR_END, tarHeader, tarPadding } from './tar.js';
import { ZstdFrame } from './zstd-frame.js';

/** Bytes that are decoded at once. */
const PIECE = 64 * 1024;

/** Told for each piece of a file that was read; the bytes are good only until the call returns, and proven only at the end. */
export type OnFileBytes = (file: ReleaseFile, bytes: Uint8Array) => void;

/**
 * Checks a payload piece by piece against its manifest: its size and hash, one zstd frame, and in it exactly the tar of the listed
 * files with their hashes. Holds the window of the decoder and one piece, never the payload. Spec: gateway §9.1, §9.5.
 */
// Spec: GW-77
export class PayloadCheck {
  readonly #manifest: Manifest;
  readonly #frame = new ZstdFrame();
  readonly #hash = blake3.create();
  readonly #tape: TapeCheck;
  readonly #decoder: Decompress;
  #size = 0;

  constructor(manifest: Manifest, onFileBytes?: OnFileBytes) {
    this.#manifest = manifest;
    this.#tape = new TapeCheck(manifest.files, onFileBytes);
    this.#decoder = new Decompress((bytes) => this.#tape.push(bytes));
  }

  /**
   * Takes the next bytes.
   *
   * @throws Refused `payload`
   */
  push(bytes: Uint8Array): void {
    this.#size += bytes.length;
    if (this.#size > this.#manifest.size) throw refuse(`it has more than the ${this.#manifest.size} bytes that the manifest says`);
    for (let at = 0; at < bytes.length; at += PIECE) {
      const piece = bytes.subarray(at, at + PIECE);
      this.#frame.push(piece);
      this.#hash.update(piece);
      this.#decode(piece, false);
    }
  }

  /**
   * There are no more bytes: everything was the one payload of the manifest.
   *
   * @throws Refused `payload`
   */
  finish(): void {
    if (this.#size !== this.#manifest.size) throw refuse(`it has ${this.#size} bytes, and the manifest says ${this.#manifest.size}`);
    this.#frame.finish();
    this.#decode(new Uint8Array(0), true);
    this.#tape.finish();
    if (hex(this.#hash.digest()) !== this.#manifest.hash) throw refuse('it is not the one of the manifest: its hash differs');
  }

  #decode(piece: Uint8Array, isFinal: boolean): void {
    try {
      this.#decoder.push(piece, isFinal);
    } catch (error) {
      if (error instanceof Refused) throw error;
      throw refuse(`it cannot be decompressed: ${(error as Error).message}`);
    }
  }
}

/** Compares what comes with the tar that the list of files makes. Nothing in the tar is parsed, so nothing in it can ask for anything. */
class TapeCheck {
  readonly #steps: Iterator<Step>;
  #step: Step | undefined;
  #at = 0;
  readonly #onFileBytes: OnFileBytes | undefined;

  constructor(files: readonly ReleaseFile[], onFileBytes?: OnFileBytes) {
    this.#steps = steps(files);
    this.#onFileBytes = onFileBytes;
    this.#next();
  }

  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const step = this.#step;
      if (!step) throw refuse('more follows behind the end of its tar');
      const length = Math.min(bytes.length - at, step.length - this.#at);
      const part = bytes.subarray(at, at + length);
      if (step.fixed) {
        if (!equal(part, step.fixed.subarray(this.#at, this.#at + length))) throw refuse(`its tar is not as it must be at ${step.place}`);
      } else {
        step.hash.update(part);
        this.#onFileBytes?.(step.file, part);
      }
      at += length;
      this.#at += length;
      if (this.#at === step.length) this.#next();
    }
  }

  finish(): void {
    if (this.#step) throw refuse(`its tar ends too early, at ${this.#step.place}`);
  }

  #next(): void {
    do {
      if (this.#step && !this.#step.fixed && hex(this.#step.hash.digest()) !== this.#step.file.hash) {
        throw refuse(`${this.#step.place} is not the file of the manifest: its hash differs`);
      }
      this.#step = this.#steps.next().value as Step | undefined;
      this.#at = 0;
    } while (this.#step?.length === 0);
  }
}

type Hash = ReturnType<typeof blake3.create>;
type Step = { place: string; length: number } & ({ fixed: Uint8Array } | { fixed?: undefined; file: ReleaseFile; hash: Hash });

function* steps(files: readonly ReleaseFile[]): Generator<Step, undefined> {
  const fixed = (place: string, bytes: Uint8Array): Step => ({ place, length: bytes.length, fixed: bytes });
  for (const file of files) {
    yield fixed(file.path, tarHeader(file));
    yield { place: file.path, length: file.size, file, hash: blake3.create() };
    yield fixed(file.path, tarPadding(file.size));
  }
  yield fixed('its end', TAR_END);
  return undefined;
}

function refuse(what: string): Refused {
  return new Refused('payload', `the payload: ${what}`);
}
