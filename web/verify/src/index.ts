/**
 * An independent verifier of what Sealtide makes. It shares the specification with the node, and no code.
 *
 * ```text
 * .stb ──readBundleHead──▶ manifest, chain ──Trust.follow, verifyManifest──▶ PayloadCheck ──▶ VerifiedBundle
 *                                                                    head ──verifyHead, Seen.admit──▶ may be installed
 * ```
 *
 * @module
 */
export { Refused, REFUSED_CODES, type RefusedCode } from './refused.js';
export { type Bytes } from './encoding/bytes.js';
export { type Json, type JsonObject } from './encoding/json.js';
export { verifyBundle, type VerifiedBundle, type VerifyOptions } from './release/verify-bundle.js';
export { readBundleHead, type BundleHead } from './release/bundle-head.js';
export { readManifest, type Manifest, type ReleaseFile, type SignedManifest } from './release/manifest.js';
export { readHead, type ChannelHead, type SignedHead } from './release/head.js';
export { readLedgerRecord, type LedgerRecord } from './release/ledger.js';
export { Trust, type Fork, type Recovered, type TrustedPair } from './release/trust.js';
export { Seen, verifyHead, verifyManifest, type Wanted } from './release/admit.js';
export { type TrustedHead, type TrustedManifest } from './release/trusted.js';
export { type OnFileBytes } from './release/payload.js';
export { type BundleSource } from './release/source.js';
export {
  readBumpAnswer, readRegistry, verifyAlone, verifyBumpAnswer, verifyRegistry, type AnswerAlgorithm, type AnswerKeys, type AnswerState,
  type BumpAnswer, type SignedRegistry,
} from './gateway/answer.js';
export { readLegacyManifest, verifyLegacyManifest, type LegacyManifest } from './gateway/legacy.js';
export { hmacKid, hmacSignature, pairSeeds, type KeySecret } from './gateway/secret.js';
export { GATEWAY_CONTEXTS, gatewayMessage, LABELS, signedMessage, type GatewayContext, type Label } from './signature/label.js';
export { kidOf, PublicPair, type Signature } from './signature/pair.js';
export { gibInfo, IbGibError, joinAddress, splitAddress, validateAddress, type AddressCode } from './ibgib/address.js';
export { gibOf, hasTjp, isDna, sha256v1, type IbGib } from './ibgib/hash.js';
export { encodeRecord, orderKey, readRecord, sid, type Frame, type VerifiedRecord } from './ibgib/record.js';
export { validateRecord, validateRelations } from './ibgib/validate.js';
export { verifyCommitStone, type CommitStone } from './ibgib/commit.js';
export { keyringAuthority } from './ibgib/keystone.js';
export { verifyTimeline } from './ibgib/timeline.js';
