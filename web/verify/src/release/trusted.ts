import type { SignedHead } from './head.js';
import type { SignedManifest } from './manifest.js';

declare const TRUSTED: unique symbol;

/** Something signed that was verified under a trust. Only `verifyHead`, `verifyManifest` and `verifyBundle` make it. */
type Trusted<T> = Readonly<T> & { readonly [TRUSTED]: true };
/** A head whose signatures count. Only `verifyHead` makes it. */
export type TrustedHead = Trusted<SignedHead>;
/** A manifest whose signatures count. Only `verifyManifest` and `verifyBundle` make it. */
export type TrustedManifest = Trusted<SignedManifest>;

/** Everything that {@link trusted} gave: types alone would protect nobody who writes JavaScript. */
const verified = new WeakSet<object>();

/** Says of something signed that it was verified; a copy, so that what was only read does not change into something that counts. */
export function trusted<T extends SignedHead | SignedManifest>(signed: T): Trusted<T> {
  const copy = Object.freeze({ ...signed }) as Trusted<T>;
  verified.add(copy);
  return copy;
}

/**
 * Whether this was verified.
 *
 * @throws TypeError for anything else: that is no fault of what was signed, it is a mistake of the caller
 */
export function demandTrusted(given: TrustedHead | TrustedManifest, how: 'verifyHead' | 'verifyManifest'): void {
  if (!verified.has(given)) throw new TypeError(`this was not verified: await ${how}, and give what it gives`);
}
