import { text as readText, type Bytes } from '../encoding/bytes.js';
import { canonicalJson } from '../encoding/canonical.js';
import { CborError, CborReader } from '../encoding/cbor.js';
import { readObject, SIGNED_LIMITS } from '../encoding/json.js';
import { readRecord, type VerifiedRecord } from '../ibgib/record.js';
import { Refused } from '../refused.js';
import { algorithm, type Signature } from '../signature/pair.js';
import { readLedgerRecord, type LedgerRecord } from './ledger.js';
import { readManifest, type SignedManifest } from './manifest.js';

/** Bytes of the head of a bundle, at most. */
export const HEAD_BYTES_MAX = 16 * 1024 * 1024;
/** Items of a chain, at most. */
export const CHAIN_MAX = 256;

/** What stands before the payload of a `.stb` file; nothing of it is proven. Spec: gateway §9.1. */
export interface BundleHead {
  manifest: SignedManifest;
  /** Ledger records, oldest first, up to the one that was in force. */
  chain: LedgerRecord[];
  /** Frames of the owner's keystone that prove the recoveries in the chain. */
  proof: VerifiedRecord[];
  /** Where the payload begins: bytes from the begin of the file. */
  length: number;
}

/**
 * Reads a head from the first bytes of a file: CBOR `["STB1", manifest, [[kid, alg, sig], …], [record, …, frame, …]]`, in its one
 * encoding. `undefined` asks for more bytes.
 *
 * @throws Refused `not_a_bundle`
 */
// Spec: GW-72
export function readBundleHead(bytes: Uint8Array): BundleHead | undefined {
  const reader = new CborReader(bytes.subarray(0, HEAD_BYTES_MAX));
  let parts: Parts;
  try {
    parts = readParts(reader);
  } catch (error) {
    if (!(error instanceof CborError)) throw error;
    if (error.short && bytes.length < HEAD_BYTES_MAX) return undefined;
    throw notABundle(error.short ? 'its head is longer than 16 MiB' : 'its head is not encoded as it must be');
  }
  const manifest = readManifest(parts.manifest, parts.signatures);
  // A record begins with a brace, and CBOR does not.
  const end = parts.chain.findIndex((item) => item[0] !== 0x7b);
  const records = end < 0 ? parts.chain.length : end;
  const chain = parts.chain.slice(0, records).map((item, at) => {
    const what = `item ${at} of its chain is no record of a key ledger`;
    const written = readText(item) ?? '';
    const value = readObject(written, SIGNED_LIMITS);
    // Each record has one spelling, that of RFC 8785.
    if (value && canonicalJson(value) !== written) throw notABundle(what);
    return readLedgerRecord(value, what);
  });
  const proof = parts.chain.slice(records).map((item, at) => readFrame(item, records + at));
  return { manifest, chain, proof, length: reader.position };
}

function readFrame(item: Bytes, at: number): VerifiedRecord {
  try {
    return readRecord(item);
  } catch (error) {
    throw error instanceof Refused ? notABundle(`item ${at} of its chain is no record of a key ledger, and no proof of one`) : error;
  }
}

interface Parts {
  manifest: Bytes;
  signatures: Signature[];
  chain: Bytes[];
}

function readParts(reader: CborReader): Parts {
  expect(reader.array() === 4 && reader.text() === 'STB1');
  const manifest = reader.bytes();
  expect(reader.array() === 2);
  const signatures = [0, 1].map(() => {
    expect(reader.array() === 3);
    const [kid, alg, sig] = [reader.text(), algorithm(reader.text()), reader.bytes().slice()];
    expect(alg !== undefined);
    return { kid, alg: alg!, sig };
  });
  const count = reader.array();
  expect(count <= CHAIN_MAX);
  const chain = Array.from({ length: count }, () => reader.bytes());
  return { manifest, signatures, chain };
}

function expect(holds: boolean): void {
  if (!holds) throw new CborError(false);
}

function notABundle(message: string): Refused {
  return new Refused('not_a_bundle', message);
}
