import type { JsonObject } from '../../src/encoding/json.js';
import { gibOf, type VerifiedRecord } from '../../src/index.js';

/** A text merged from two that began as `base`, and how often both said something else. */
export interface MergedText {
  text: string;
  conflicts: number;
}

/** Merges texts that are short enough for a table of their words; the winner's first. Spec: ibgib §16.2. */
export function mergeText(base: string, first: string, second: string): MergedText {
  const [b, f, s] = [base, first, second].map(tokens) as [string[], string[], string[]];
  const [toFirst, toSecond] = [align(base, first), align(base, second)];
  let [text, conflicts] = ['', 0];
  let [i, j, k] = [0, 0, 0];
  for (let at = 0; at <= b.length; at++) {
    const isEnd = at === b.length;
    const [inFirst, inSecond] = isEnd ? [f.length, s.length] : [toFirst.get(at), toSecond.get(at)];
    if (inFirst === undefined || inSecond === undefined) continue;
    const region = mergeRegion(b.slice(i, at).join(''), f.slice(j, inFirst).join(''), s.slice(k, inSecond).join(''));
    text += region.text + (isEnd ? '' : b[at]!);
    conflicts += region.conflicts;
    [i, j, k] = [at + 1, inFirst + 1, inSecond + 1];
  }
  return { text, conflicts };
}

function mergeRegion(base: string, first: string, second: string): MergedText {
  if (first === base) return { text: second, conflicts: 0 };
  if (second === base || first === second) return { text: first, conflicts: 0 };
  if (first === '' || second === '') return { text: first || second, conflicts: 1 };
  const space = /[\n \t]$/.test(first) || /^[\n \t]/.test(second) ? '' : ' ';
  return { text: first + space + second, conflicts: 1 };
}

function tokens(text: string): string[] {
  return text.match(/\n|[ \t]+|[^\n \t]+/g) ?? [];
}

/** Which word of `side` each matched word of `base` is: lines are matched first, then the words between them. Spec: merge §5. */
function align(base: string, side: string): Map<number, number> {
  const lines = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const [inBase, inSide] = [lines(base), lines(side)];
  const ofLines = matches(inBase, inSide);
  const found = new Map<number, number>();
  const behind = [0, 0] as [number, number];
  const add = (between: Map<number, number>, [words, others]: [number, number]): void => {
    for (const [from, to] of between) found.set(behind[0] + from, behind[1] + to);
    behind[0] += words;
    behind[1] += others;
  };
  let [from, fromSide] = [0, 0];
  for (let at = 0; at <= inBase.length; at++) {
    const place = at === inBase.length ? inSide.length : ofLines.get(at);
    if (place === undefined) continue;
    const gap = [inBase.slice(from, at), inSide.slice(fromSide, place)].map((lines) => lines.flatMap(tokens)) as [string[], string[]];
    add(matches(...gap), [gap[0].length, gap[1].length]);
    const words = tokens(inBase[at] ?? '');
    add(new Map(words.map((_, word) => [word, word])), [words.length, words.length]);
    [from, fromSide] = [at + 1, place + 1];
  }
  return found;
}

/** Which token of `side` each matched token of `base` is, with one place for each insertion and deletion. */
function matches(base: string[], side: string[]): Map<number, number> {
  const turned = (places: Map<number, number>): Map<number, number> => new Map([...places].map(([from, to]) => [to, from]));
  const found = common(base, side);
  settle(base, side, found);
  const back = turned(found);
  settle(side, base, back);
  return turned(back);
}

/** Insertions go down as far as they can, then up to where they end with a line feed, if they can. */
function settle(base: string[], side: string[], found: Map<number, number>): void {
  const begins = (at: number): number | undefined => (at === 0 ? 0 : found.has(at - 1) ? found.get(at - 1)! + 1 : undefined);
  const ends = (at: number): number | undefined => (at === base.length ? side.length : found.get(at));
  for (let place = base.length; place >= 0; place--) {
    let [at, begin, end] = [place, begins(place), ends(place)];
    if (begin === undefined || end === undefined || begin === end) continue;
    while (at < base.length && side[begin] === base[at] && ends(at + 1) !== undefined) {
      found.set(at++, begin++);
      end = ends(at)!;
    }
    const last = (up: number): string => side[end - 1 - up]!;
    let [up, meets] = [0, false];
    while (!last(up).endsWith('\n') && !meets && base[at - up - 1] === last(up) && found.get(at - up - 1) === begin - up - 1 && begins(at - up - 1) !== undefined) {
      meets = begins(at - up - 1) !== begin - up - 1;
      up++;
    }
    if (last(up).endsWith('\n')) for (; up > 0; up--) found.set(at - up, end - up);
  }
}

/** A longest common subsequence: the one that a walk from the start meets. */
function common(base: string[], side: string[]): Map<number, number> {
  const found = new Map<number, number>();
  let begin = 0;
  while (begin < base.length && begin < side.length && base[begin] === side[begin]) found.set(begin, begin++);
  let [i, j] = [base.length, side.length];
  while (i > begin && j > begin && base[i - 1] === side[j - 1]) found.set(--i, --j);
  const [rows, columns] = [i - begin, j - begin];
  const table = Array.from({ length: rows + 1 }, () => new Array<number>(columns + 1).fill(0));
  for (let row = rows - 1; row >= 0; row--) {
    for (let column = columns - 1; column >= 0; column--) {
      const isSame = base[begin + row] === side[begin + column];
      table[row]![column] = isSame ? table[row + 1]![column + 1]! + 1 : Math.max(table[row + 1]![column]!, table[row]![column + 1]!);
    }
  }
  for (let row = 0, column = 0; row < rows && column < columns; ) {
    if (base[begin + row] === side[begin + column]) found.set(begin + row++, begin + column++);
    else if (table[row + 1]![column]! >= table[row]![column + 1]!) row++;
    else column++;
  }
  return found;
}

/** The time of a frame, ms. */
function stampOf({ record }: VerifiedRecord): number {
  const data = record.data as JsonObject;
  return Date.parse(String(data['timestamp'])) + Number(data['timestampMs']);
}

/** Which of two tips wins: the greater n, then the later, then the smaller gib. Spec: ibgib §16. */
function winner(one: VerifiedRecord, other: VerifiedRecord): [VerifiedRecord, VerifiedRecord] {
  const isAhead = one.frame!.n - other.frame!.n || stampOf(one) - stampOf(other) || (one.record.gib! < other.record.gib! ? 1 : -1);
  return isAhead > 0 ? [one, other] : [other, one];
}

/** The address of the frame that merges two versions of a file of text which were both changed and not moved. Spec: ibgib §16, §16.1. */
export function mergedAddress(base: VerifiedRecord, one: VerifiedRecord, other: VerifiedRecord): string {
  const [won, lost] = winner(one, other);
  const [data, left, from] = [won, lost, base].map((it) => it.record.data as JsonObject) as [JsonObject, JsonObject, JsonObject];
  const { text, conflicts } = mergeText(String(from['text']), String(data['text']), String(left['text']));
  const later = stampOf(lost) > stampOf(won) ? left : data;
  const merged: JsonObject = {
    ...data,
    text,
    mtime: Math.max(Number(data['mtime']), Number(left['mtime'])),
    n: won.frame!.n + 1,
    timestamp: later['timestamp']!,
    timestampMs: later['timestampMs']!,
    graft: { conflicts, strategy: 'optimistic' },
  };
  const { rel8ns } = won.record;
  const relations = { ...rel8ns, past: [won.address], graftbase: [base.address], graftorphan: [lost.address] };
  const record = { ib: won.record.ib, data: merged, rel8ns: relations };
  return `${record.ib}^${gibOf(record)}`;
}
