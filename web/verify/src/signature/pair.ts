import { sha256 } from '@noble/hashes/sha2.js';
import { base64, fromBase64 } from '../encoding/base64.js';
import { copied, equal, type Bytes } from '../encoding/bytes.js';
import { hex } from '../encoding/hex.js';
import { isObject, member, type Json } from '../encoding/json.js';
import { Refused } from '../refused.js';
import { isEd25519Key, verifyEd25519, ED25519_SIGNATURE_BYTES } from './ed25519.js';
import { signedMessage, type Label } from './label.js';
import { ML_DSA_KEY_BYTES, ML_DSA_SIGNATURE_BYTES, verifyMlDsa87 } from './mldsa.js';

/** The two algorithms of a double signature, in their order. Spec: gateway §7.3. */
export const ALGORITHMS = ['ML-DSA-87', 'Ed25519'] as const;
/** An algorithm of a double signature. */
export type Algorithm = (typeof ALGORITHMS)[number];

const SIGNATURE_BYTES: Record<Algorithm, number> = { 'ML-DSA-87': ML_DSA_SIGNATURE_BYTES, Ed25519: ED25519_SIGNATURE_BYTES };

/** The algorithm of a name; `undefined` for any other, HMAC included. */
export function algorithm(name: Json | undefined): Algorithm | undefined {
  return ALGORITHMS.find((it) => it === name);
}

/** One entry of `signatures`, as it was read. */
export interface Signature {
  /** First 16 hex digits of the SHA-256 of the key. */
  kid: string;
  /** What it says it is; what counts is the verifier's own. */
  alg: Algorithm;
  /** Its bytes. */
  sig: Uint8Array;
}

/** Reads `{"kid","alg","sig"}` strictly; `undefined` for any other form. Spec: gateway §7.3, §7.4. */
export function readSignature(value: Json): Signature | undefined {
  if (!isObject(value) || Object.keys(value).length !== 3) return undefined;
  const [kid, alg, spelled] = [member(value, 'kid'), algorithm(member(value, 'alg')), member(value, 'sig')];
  if (typeof kid !== 'string' || kid.length !== 16 || !alg || typeof spelled !== 'string') return undefined;
  const sig = fromBase64(spelled);
  return sig?.length === SIGNATURE_BYTES[alg] ? { kid, alg, sig } : undefined;
}

/** `{"kid","alg","sig"}`. */
export function signatureValue({ kid, alg, sig }: Signature): Json {
  return { kid, alg, sig: base64(sig) };
}

/** The name of a public key: first 16 hex digits of its SHA-256. Spec: gateway §7.6. */
export function kidOf(publicKey: Uint8Array): string {
  return hex(sha256(publicKey)).slice(0, 16);
}

/** The public keys of a pair. Which algorithm counts is said here, never by what is verified. */
export class PublicPair {
  /** The ML-DSA-87 key. */
  readonly mlDsa: Bytes;
  /** The Ed25519 key. */
  readonly ed25519: Bytes;
  /** Names of both, ML-DSA-87 first. */
  readonly kids: readonly [string, string];

  private constructor(mlDsa: Bytes, ed25519: Bytes) {
    this.mlDsa = mlDsa;
    this.ed25519 = ed25519;
    this.kids = [kidOf(mlDsa), kidOf(ed25519)];
  }

  /** The pair of these keys; `undefined` for keys that no library takes. */
  static of(mlDsa: Uint8Array, ed25519: Uint8Array): PublicPair | undefined {
    return mlDsa.length === ML_DSA_KEY_BYTES && isEd25519Key(ed25519) ? new PublicPair(copied(mlDsa), copied(ed25519)) : undefined;
  }

  /** Whether both are the same keys. */
  equals(other: PublicPair): boolean {
    return equal(this.mlDsa, other.mlDsa) && equal(this.ed25519, other.ed25519);
  }

  /**
   * Checks that both keys signed `content`, each once and in order.
   *
   * @throws Refused `bad_signature`
   */
  // Spec: GW-103
  async verify(label: Label, content: Uint8Array, signatures: readonly Signature[]): Promise<void> {
    const names = (at: number): boolean => signatures[at]?.kid === this.kids[at] && signatures[at]?.alg === ALGORITHMS[at];
    if (signatures.length !== 2 || !names(0) || !names(1)) {
      throw new Refused('bad_signature', 'it must have exactly two signatures, ML-DSA-87 and Ed25519, by keys of one pair');
    }
    const message = signedMessage(label, content);
    if (!verifyMlDsa87(this.mlDsa, message, signatures[0]!.sig)) throw wrong('ML-DSA-87');
    if (!(await verifyEd25519(this.ed25519, message, signatures[1]!.sig))) throw wrong('Ed25519');
  }
}

function wrong(name: Algorithm): Refused {
  return new Refused('bad_signature', `its ${name} signature does not verify`);
}
