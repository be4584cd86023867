/** Counts by name over time, as a chart draws them. */

/** A moment in seconds, and how often each name counted since the one before. */
export type Counted = [second: number, counts: Record<string, number>];

/** Names in order, and the table of a chart: times first, then the values of each name. `null` where no line can be drawn: with less than two
 * moments, or while nothing was counted. */
export function lines(rows: Counted[]): { names: [string, ...string[]]; table: number[][] } | null {
  const [first, ...others] = [...new Set(rows.flatMap(([, counts]) => Object.keys(counts)))].sort();
  if (rows.length < 2 || first === undefined) return null;
  const names: [string, ...string[]] = [first, ...others];
  return { names, table: [rows.map(([second]) => second), ...names.map((name) => rows.map(([, counts]) => counts[name] ?? 0))] };
}
