/** Milliseconds before the first attempt to come back. */
export const FIRST_MS = 500;
/** Milliseconds between attempts, at most. */
export const LONGEST_MS = 10_000;

/**
 * How long to wait before attempt `attempt` (0 is the first): doubling from half a second up to ten, of which the last half is
 * chance, so that pages that lost one node do not all come back in the same moment.
 *
 * @param chance at least 0, below 1
 */
export function waitBefore(attempt: number, chance: number): number {
  const whole = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 30));
  return Math.round(whole / 2 + (whole / 2) * chance);
}
