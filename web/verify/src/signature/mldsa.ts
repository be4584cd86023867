import { ml_dsa87 } from '@noble/post-quantum/ml-dsa.js';

/** Bytes of an ML-DSA-87 public key. */
export const ML_DSA_KEY_BYTES = 2592;
/** Bytes of an ML-DSA-87 signature. */
export const ML_DSA_SIGNATURE_BYTES = 4627;

/** Whether an ML-DSA-87 signature (FIPS 204, pure, empty context) is good. Never throws. */
export function verifyMlDsa87(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== ML_DSA_KEY_BYTES || signature.length !== ML_DSA_SIGNATURE_BYTES) return false;
  try {
    return ml_dsa87.verify(signature, message, publicKey);
  } catch {
    return false;
  }
}
