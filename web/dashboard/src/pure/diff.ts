/** Unified differences and two texts, as rows of two columns. */

/** One row: a line of the old text, of the new one, or of both. Numbers are from 1; a head has neither. */
export interface DiffRow {
  kind: 'same' | 'removed' | 'added' | 'changed' | 'head';
  old: { n: number; text: string } | null;
  new: { n: number; text: string } | null;
}

/** The rows of a unified difference: removed lines stand beside the added ones that follow them. */
export function rowsOfUnified(text: string): DiffRow[] {
  const rows: DiffRow[] = [];
  let [oldN, newN] = [0, 0];
  let removed: string[] = [];
  let added: string[] = [];
  const flush = (): void => {
    pair(rows, removed, added, oldN - removed.length, newN - added.length);
    removed = [];
    added = [];
  };
  for (const line of text.replace(/\n$/, '').split('\n')) {
    const head = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(line);
    if (head) {
      flush();
      // A side of no lines is said to begin at the line before.
      oldN = Number(head[1]) + (head[2] === '0' ? 1 : 0);
      newN = Number(head[3]) + (head[4] === '0' ? 1 : 0);
      if (rows.length) rows.push({ kind: 'head', old: null, new: null });
    } else if (line.startsWith('-') && oldN > 0) {
      if (added.length) flush();
      removed.push(line.slice(1));
      oldN += 1;
    } else if (line.startsWith('+') && newN > 0) {
      added.push(line.slice(1));
      newN += 1;
    } else if (line.startsWith(' ') && oldN + newN > 0) {
      flush();
      rows.push({ kind: 'same', old: { n: oldN++, text: line.slice(1) }, new: { n: newN++, text: line.slice(1) } });
    }
  }
  flush();
  return rows;
}

/** Lines compared with each other by {@link rowsOfTexts}, at most; longer texts are compared by their common ends alone. */
const LINES_MAX = 2_000;

/** The rows of two whole texts, by their longest common lines. */
export function rowsOfTexts(before: string, after: string): DiffRow[] {
  const [a, b] = [linesOf(before), linesOf(after)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const rows: DiffRow[] = [];
  const same = (oldN: number, newN: number): void => {
    rows.push({ kind: 'same', old: { n: oldN + 1, text: a[oldN]! }, new: { n: newN + 1, text: b[newN]! } });
  };
  for (let at = 0; at < start; at += 1) same(at, at);
  const middleA = a.slice(start, a.length - end);
  const middleB = b.slice(start, b.length - end);
  let [fromA, fromB] = [0, 0];
  for (const [atA, atB] of [...commonLines(middleA, middleB), [middleA.length, middleB.length] as const]) {
    pair(rows, middleA.slice(fromA, atA), middleB.slice(fromB, atB), start + fromA + 1, start + fromB + 1);
    if (atA < middleA.length && atB < middleB.length) same(start + atA, start + atB);
    [fromA, fromB] = [atA + 1, atB + 1];
  }
  for (let at = end; at > 0; at -= 1) same(a.length - at, b.length - at);
  return rows;
}

function linesOf(text: string): string[] {
  if (text === '') return [];
  return text.replace(/\n$/, '').split('\n');
}

/** Pairs of places of the longest common sequence of lines. */
function commonLines(a: readonly string[], b: readonly string[]): [number, number][] {
  if (a.length * b.length > LINES_MAX * LINES_MAX) return [];
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const down = lengths[(i + 1) * width + j]!;
      const right = lengths[i * width + j + 1]!;
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1]! + 1 : Math.max(down, right);
    }
  }
  const found: [number, number][] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) found.push([i++, j++]);
    else if (lengths[(i + 1) * width + j]! >= lengths[i * width + j + 1]!) i += 1;
    else j += 1;
  }
  return found;
}

function pair(rows: DiffRow[], removed: readonly string[], added: readonly string[], oldN: number, newN: number): void {
  for (let at = 0; at < Math.max(removed.length, added.length); at += 1) {
    const [was, is] = [removed[at], added[at]];
    rows.push({
      kind: was === undefined ? 'added' : is === undefined ? 'removed' : 'changed',
      old: was === undefined ? null : { n: oldN + at, text: was },
      new: is === undefined ? null : { n: newN + at, text: is },
    });
  }
}
