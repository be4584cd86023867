import type { Bytes } from '../encoding/bytes.js';
import { Refused } from '../refused.js';
import { checkRegistry, verifyManifest } from './admit.js';
import { HEAD_BYTES_MAX, readBundleHead, type BundleHead } from './bundle-head.js';
import type { SignedManifest } from './manifest.js';
import { PayloadCheck, type OnFileBytes } from './payload.js';
import { Pieces, sizeOf, type BundleSource } from './source.js';
import type { TrustedManifest } from './trusted.js';
import { Trust } from './trust.js';

/** Bytes of a head that are tried first; most are shorter. */
const HEAD_FIRST = 256 * 1024;

/** What else {@link verifyBundle} may be told. */
export interface VerifyOptions {
  /** Now, ms since 1970; the clock of the machine when nothing is said. */
  wallMs?: number;
  /** Bytes of the source, where it is a stream and they are known: then a wrong size is refused before anything else. */
  size?: number;
  /** Other manifests of the channel, from which a compromised version's last good one can be reached. */
  earlier?: readonly SignedManifest[];
  /** Gets the bytes of the files as they pass. They are proven only when {@link verifyBundle} returns. */
  onFileBytes?: OnFileBytes;
  /**
   * Gets the trust as soon as the chain was followed, as far as it could be: also when the bundle is refused afterwards, or because
   * the chain shows a fork. Keep it, so that a fork is not forgotten.
   */
  onLearned?: (trust: Trust) => void;
}

/** A bundle that is what its publisher made. */
export interface VerifiedBundle {
  manifest: TrustedManifest;
  /** The trust with what the chain of the bundle taught; worth keeping. */
  trust: Trust;
  /** Nobody asked whether there is a newer release: that needs a channel head, see `verifyHead` and `Seen`. */
  freshness: 'not checked';
}

/**
 * Checks a `.stb` file whole, with nothing but a trust: head, chain, both signatures, payload hash, tar, every file. A stream is
 * never held in memory. `trust` stays as it is.
 *
 * @throws Refused `not_a_bundle`, `payload`, `trust`, and what `verifyManifest` throws; `trust_file` for a text that is no trust
 */
// Spec: GW-103, GW-105, GW-110
export async function verifyBundle(source: BundleSource, trust: Trust | string, options: VerifyOptions = {}): Promise<VerifiedBundle> {
  const learned = typeof trust === 'string' ? Trust.parse(trust) : trust.clone();
  const pieces = new Pieces(source);
  try {
    const [head, gathered] = await readHead(pieces);
    const { manifest } = head;
    const size = options.size ?? sizeOf(source);
    const rest = gathered.subarray(head.length);
    if (size !== undefined && size - head.length !== manifest.content.size) {
      const text = `its payload has ${size - head.length} bytes, and the manifest says ${manifest.content.size}`;
      throw new Refused('payload', text);
    }
    // Before its keys, which are others then.
    checkRegistry(learned, manifest.content.registry);
    try {
      await learned.follow(head.chain, head.proof);
    } finally {
      options.onLearned?.(learned);
    }
    const proven = await verifyManifest(learned, manifest, options.earlier ?? [], options.wallMs ?? Date.now());
    const check = new PayloadCheck(manifest.content, options.onFileBytes);
    for (let piece: Uint8Array | undefined = rest; piece; piece = await pieces.next()) check.push(piece);
    check.finish();
    return { manifest: proven, trust: learned, freshness: 'not checked' };
  } finally {
    await pieces.close();
  }
}

async function readHead(pieces: Pieces): Promise<[BundleHead, Bytes]> {
  let gathered: Bytes = new Uint8Array(0);
  for (const least of [HEAD_FIRST, HEAD_BYTES_MAX]) {
    gathered = await pieces.gather(gathered, least);
    const head = readBundleHead(gathered);
    if (head) return [head, gathered];
    if (gathered.length < least) break;
  }
  throw new Refused('not_a_bundle', 'it ends within its head');
}
