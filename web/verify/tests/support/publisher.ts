import { ed25519 } from '@noble/curves/ed25519.js';
import { blake3 } from '@noble/hashes/blake3.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { ml_dsa87 } from '@noble/post-quantum/ml-dsa.js';
import { base64 } from '../../src/encoding/base64.js';
import { concat, utf8, type Bytes } from '../../src/encoding/bytes.js';
import { canonicalJson } from '../../src/encoding/canonical.js';
import { cbor } from '../../src/encoding/cbor.js';
import { hex } from '../../src/encoding/hex.js';
import type { Json, JsonObject } from '../../src/encoding/json.js';
import { writeTime } from '../../src/encoding/time.js';
import { kidOf, signedMessage, type Label } from '../../src/index.js';
import { writeNodeId } from '../../src/release/node-id.js';
import { TAR_END, tarHeader, tarPadding } from '../../src/release/tar.js';

/** A pair with its secrets, made from a number. */
export class SecretPair {
  readonly #ml;
  readonly #seed: Bytes;
  readonly keys: { alg: string; kid: string; publicKey: string }[];

  constructor(number: number) {
    this.#seed = new Uint8Array(32).fill(number);
    this.#ml = ml_dsa87.keygen(this.#seed);
    const key = (alg: string, bytes: Uint8Array): (typeof this.keys)[0] => ({ alg, kid: kidOf(bytes), publicKey: base64(bytes) });
    this.keys = [key('ML-DSA-87', this.#ml.publicKey), key('Ed25519', ed25519.getPublicKey(this.#seed))];
  }

  /** Both signatures. */
  sign(label: Label, content: Uint8Array): { kid: string; alg: string; sig: Bytes }[] {
    const message = signedMessage(label, content);
    const sigs = [ml_dsa87.sign(message, this.#ml.secretKey), ed25519.sign(message, this.#seed)];
    return this.keys.map(({ kid, alg }, at) => ({ kid, alg, sig: sigs[at] as Bytes }));
  }
}

export const REGISTRY = `releases^${'AB'.repeat(32)}`;
const LEDGER = `keyring^${'CD'.repeat(32)}`;
export const NOW = Date.UTC(2026, 10, 28, 12);

/** A file that is shipped. */
export interface Shipped {
  path: string;
  bytes: Uint8Array;
  executable?: boolean;
}

export const FILES: Shipped[] = [
  { path: 'a.txt', bytes: utf8('hello\n') },
  { path: 'empty', bytes: new Uint8Array(0) },
  { path: `lang/${'ä'.repeat(70)}.txt`, bytes: new Uint8Array(1000).fill(65) },
  { path: 'run.sh', bytes: utf8('#!/bin/sh\n'), executable: true },
];

/** The tar of files. */
export function tarOf(files: readonly Shipped[]): Bytes {
  const parts = files.flatMap(({ path, bytes, executable = false }) => [
    tarHeader({ path, size: bytes.length, executable }), bytes, tarPadding(bytes.length),
  ]);
  return concat(...parts, TAR_END);
}

/** One zstd frame of blocks that are not compressed. */
export function zstdOf(plain: Uint8Array): Bytes {
  const parts: Uint8Array[] = [Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58)];
  for (let at = 0; at < plain.length || at === 0; at += 65_536) {
    const block = plain.subarray(at, at + 65_536);
    const head = (block.length << 3) | (at + 65_536 >= plain.length ? 1 : 0);
    parts.push(Uint8Array.of(head & 255, (head >> 8) & 255, head >> 16), block);
  }
  return concat(...parts);
}

/** A whole publisher, written from the specification: pairs, a ledger, manifests, heads, bundles, trust files. */
export class Publisher {
  readonly pairs = new Map<number, SecretPair>();
  readonly records: JsonObject[] = [];
  #node = writeNodeId(sha256(utf8('a node')));

  constructor(versions = [1]) {
    for (const version of versions) this.pairs.set(version, new SecretPair(version));
  }

  /** Signs the next ledger record by `signers`; gives it. */
  record(action: string, active: number, states: Record<string, string>, signers: number[], change: JsonObject = {}): JsonObject {
    const before = this.records.at(-1);
    const { signatures: _, ...unsigned } = before ?? {};
    const record: JsonObject = {
      schema: 'sealtide/keyring/1',
      ledger: before ? LEDGER : null,
      epoch: this.records.length + 1,
      prev: before ? hex(sha256(utf8(canonicalJson(unsigned as Json)!))) : null,
      action,
      keyVersion: String(active),
      previous: null,
      rotationTimestamp: writeTime(NOW),
      forced: false,
      auto: false,
      states,
      notAfter: {},
      keys: [...this.pairs].flatMap(([version, pair]) => pair.keys.map((key) => ({ version: `v${version}`, ...key }))),
      compromised: [],
      node: this.#node,
      by: 'test',
      reason: '',
      ...change,
    };
    const bytes = utf8(canonicalJson(record)!);
    const entries = signers.flatMap((version) => this.pairs.get(version)!.sign('keys1 rotate', bytes));
    record['signatures'] = entries.map((entry) => ({ ...entry, sig: base64(entry.sig) }));
    this.records.push(record);
    return record;
  }

  /** The trust file that names the pair of `version` at `epoch`. */
  trust(version = 1, epoch = 1): string {
    return JSON.stringify({ schema: 'sealtide/trust/1', registry: REGISTRY, epoch, keys: this.pairs.get(version)!.keys });
  }

  /** A manifest of files, before it is signed. */
  manifest(files: readonly Shipped[] = FILES, change: JsonObject = {}, payload = zstdOf(tarOf(files))): JsonObject {
    return {
      manifestVersion: 1,
      registry: REGISTRY,
      name: 'kiosk',
      version: '1.0.0',
      channel: 'stable',
      seq: 1,
      prev: null,
      minimumVersion: null,
      keyVersion: 'v1',
      createdAt: writeTime(NOW),
      expiry: null,
      archiveDate: null,
      hash: hex(blake3(payload)),
      size: payload.length,
      unpackedSize: files.reduce((sum, file) => sum + file.bytes.length, 0),
      files: files.map(({ path, bytes, executable }) => ({
        path, hash: hex(blake3(bytes)), size: bytes.length, mode: executable ? '0755' : '0644',
      })),
      registryRevision: 1,
      signedAt: writeTime(NOW),
      ...change,
    };
  }

  /** A bundle of a manifest: `signer` signs, `chain` stands in the head. */
  bundle(manifest: JsonObject, payload: Uint8Array, signer = 1, chain: readonly JsonObject[] = this.records): Bytes {
    const bytes = utf8(canonicalJson(manifest)!);
    const entries = this.pairs.get(signer)!.sign('release1 manifest', bytes);
    return concat(
      ...cbor.array(4), ...cbor.text('STB1'), ...cbor.bytes(bytes), ...cbor.array(2),
      ...entries.flatMap(({ kid, alg, sig }) => [...cbor.array(3), ...cbor.text(kid), ...cbor.text(alg), ...cbor.bytes(sig)]),
      ...cbor.array(chain.length), ...chain.flatMap((record) => cbor.bytes(utf8(canonicalJson(record)!))),
      payload,
    );
  }

  /** A channel head, signed. */
  head(change: JsonObject, signer = 1): JsonObject {
    const head: JsonObject = {
      schema: 'sealtide/head/1',
      registry: REGISTRY,
      channel: 'stable',
      seq: 1,
      manifestSha256: '00'.repeat(32),
      version: '1.0.0',
      epoch: 1,
      issuedAt: writeTime(NOW),
      notAfter: writeTime(NOW + 7 * 86_400_000),
      yanked: [],
      ...change,
    };
    const entries = this.pairs.get(signer)!.sign('release1 head', utf8(canonicalJson(head)!));
    return { ...head, signatures: entries.map((entry) => ({ ...entry, sig: base64(entry.sig) })) };
  }
}
