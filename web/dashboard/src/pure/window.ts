/** Which rows of a long list are in the document: those that are seen, and a few around them. */

/** Rows from `first` up to, and without, `end`. */
export interface Window {
  first: number;
  end: number;
}

/** Rows kept on both sides of what is seen, so that a quick turn of a wheel shows no gap. */
export const AROUND = 12;

/**
 * The rows of a list of `rows` rows, each `height` high, when it is scrolled by `top` and `seen` of it is visible.
 * All lengths in CSS pixels.
 */
export function windowOf(rows: number, height: number, top: number, seen: number): Window {
  const first = Math.max(0, Math.floor(Math.max(0, top) / height) - AROUND);
  const end = Math.min(rows, Math.ceil((Math.max(0, top) + seen) / height) + AROUND);
  return { first: Math.min(first, Math.max(0, end)), end };
}

/** Pixels that a browser lays out, safely; longer lists are squeezed by {@link squeeze}. */
export const TALLEST = 8_000_000;

/** By how much the scrolled length is shorter than all rows together: 1 for lists that fit. */
export function squeeze(rows: number, height: number): number {
  return Math.max(1, (rows * height) / TALLEST);
}
