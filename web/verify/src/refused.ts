/**
 * Why something does not count: words that stay what they are, snake_case, the same ones that `sealtide release verify` prints where it has
 * them. A new release may know more of them.
 */
export const REFUSED_CODES = [
  // What a file is. Spec: gateway §9.1.
  'not_a_bundle', 'payload',
  // Whom a verifier trusts. Spec: gateway §9.7.
  'trust', 'trust_file', 'no_trust', 'seen_file',
  // Whether a release counts. Spec: gateway §9.5 to §9.7.
  'other_registry', 'unknown_key', 'bad_signature', 'key_version', 'key_expired', 'key_compromised',
  'head_retired', 'head_ahead', 'head_early', 'head_expired', 'not_a_head', 'other_channel', 'other_app', 'not_of_head',
  'rollback', 'equivocation', 'yanked', 'expired',
  // Answers of a gateway, and what the older system signed. Spec: gateway §7.3, §8.1, §9.1.
  'bad_answer', 'not_signed', 'untrusted',
  // Records of a timeline. Spec: ibgib §12.2.2.
  'too_large', 'bad_json', 'not_canonical', 'bad_addr', 'primitive', 'gib_mismatch', 'bad_rel', 'bad_tjp', 'bad_n',
  'bad_bin', 'bad_timeline', 'bad_commit',
] as const;
/** One of {@link REFUSED_CODES}. */
export type RefusedCode = (typeof REFUSED_CODES)[number];

/** Thrown by everything here that refuses; whatever else is thrown is a fault of the platform (a file that cannot be read). */
export class Refused extends Error {
  /** The reason, for programs. */
  readonly code: RefusedCode;

  /** @param message the reason, for people */
  constructor(code: RefusedCode, message: string) {
    super(message);
    this.name = 'Refused';
    this.code = code;
  }
}
