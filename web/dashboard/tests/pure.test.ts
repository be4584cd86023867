import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FIRST_MS, LONGEST_MS, waitBefore } from '../src/pure/backoff.js';
import { lines } from '../src/pure/counts.js';
import { rowsOfTexts, rowsOfUnified } from '../src/pure/diff.js';
import { bytes, count, counted, fullTime, list, relative, shortId, span, suite } from '../src/pure/format.js';
import { Lines, LINES_MOST, type LinesFrom } from '../src/pure/lines.js';
import { codeOf, hrefOf, routeOf, type Route } from '../src/pure/route.js';
import { needs, statements } from '../src/pure/sentence.js';
import { Turns } from '../src/pure/turns.js';
import { AROUND, squeeze, TALLEST, windowOf } from '../src/pure/window.js';

describe('back-off', () => {
  test('it doubles from half a second to ten, and chance takes at most half of it', () => {
    assert.deepEqual([0, 1, 2, 3, 4, 5, 100].map((attempt) => waitBefore(attempt, 1)), [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    for (const attempt of [0, 3, 9]) {
      const whole = Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt);
      assert.equal(waitBefore(attempt, 0), whole / 2);
      assert.ok(waitBefore(attempt, 0.999) <= whole);
    }
  });
});

describe('counts by name', () => {
  test('a line for each name, from nought where it did not count', () => {
    assert.deepEqual(lines([[1, { v1: 2 }], [2, { v2: 3 }]]), { names: ['v1', 'v2'], table: [[1, 2], [2, 0], [0, 3]] });
  });

  test('nothing is drawn of a node that signed nothing for minutes, or has just begun', () => {
    assert.equal(lines([[1, {}], [2, {}], [3, {}]]), null);
    assert.equal(lines([[1, { v1: 2 }]]), null);
    assert.equal(lines([]), null);
  });
});

describe('format', () => {
  test('sizes', () => {
    assert.deepEqual([0, 18, 999, 1000, 1234, 99_950, 1e6, 2.5e9].map(bytes), ['0 B', '18 B', '999 B', '1.0 KB', '1.2 KB', '100 KB', '1.0 MB', '2.5 GB']);
  });

  test('counts', () => {
    assert.equal(count(999), '999');
    assert.equal(count(1_234_567).replaceAll('\u202f', ' '), '1 234 567');
    assert.deepEqual([counted(1, 'file'), counted(2, 'file'), counted(0, 'entry', 'entries')], ['1 file', '2 files', '0 entries']);
  });

  test('spans and distances in time', () => {
    assert.deepEqual([45, 3_210, 45_000, 240_000, 7_500_000, 7_200_000, 2e9].map(span), ['45 ms', '3.2 s', '45 s', '4 min', '2 h 5 min', '2 h', '23 d']);
    const now = Date.UTC(2026, 0, 2);
    assert.equal(relative(now - 3_000, now), 'just now');
    assert.equal(relative(now - 30_000, now), '30 s ago');
    assert.equal(relative(now - 240_000, now), '4 min ago');
    assert.equal(relative(now - 7_500_000, now), '2 h ago');
    assert.equal(relative(now + 3 * 86_400_000, now), 'in 3 d');
    assert.match(fullTime(now), /^202[56]-\d\d-\d\d \d\d:\d\d:\d\d$/);
    assert.equal(fullTime(Number.NaN), '');
  });

  test('names', () => {
    assert.equal(shortId('stn1pa5zuzkkwrby6'), 'pa5zuzkk');
    assert.equal(suite('TLS_AES_256_GCM_SHA384/X25519MLKEM768'), 'AES-256-GCM, X25519 + ML-KEM-768');
    assert.equal(suite('TLS13_CHACHA20_POLY1305_SHA256/X25519MLKEM768'), 'ChaCha20-Poly1305, X25519 + ML-KEM-768');
    assert.equal(suite(undefined), '');
    assert.deepEqual([list([]), list(['a']), list(['a', 'b']), list(['a', 'b', 'c'])], ['', 'a', 'a and b', 'a, b and c']);
  });
});

describe('routes', () => {
  const routes: Route[] = [
    { page: 'overview' }, { page: 'files', space: '', under: '' }, { page: 'files', space: 'My Notes', under: 'a/b c/ü#?%' },
    { page: 'file', space: 'Notes', path: 'dir/100%.txt' }, { page: 'conflict', space: 'a/b', path: 'x' }, { page: 'links', peer: '' },
    { page: 'links', peer: 'stn1abc' }, { page: 'sagas' }, { page: 'releases', app: 'kiosk' }, { page: 'keys' }, { page: 'audit', seq: null }, { page: 'audit', seq: 42 },
  ];
  test('each comes back from its address', () => {
    for (const route of routes) assert.deepEqual(routeOf(hrefOf(route)), route);
  });

  test('what is not understood is the overview, and never throws', () => {
    for (const hash of ['', '#', '#/', '#/nowhere', '#/overview/x', '#code=abc', '#/%E0%A4%A']) assert.equal(routeOf(hash).page, 'overview');
    assert.deepEqual(routeOf('#/file/Notes'), { page: 'files', space: 'Notes', under: '' });
    assert.deepEqual(routeOf('#/audit/12x'), { page: 'audit', seq: null });
    assert.deepEqual(routeOf('#/files/a%E0'), { page: 'files', space: 'a%E0', under: '' });
  });

  test('a code is taken from a link that signs in, and from nothing else', () => {
    assert.equal(codeOf('#code=NdquF-_1'), 'NdquF-_1');
    for (const hash of ['', '#code=', '#code=a b', '#/code=x', '#code=x&y', `#code=${'a'.repeat(257)}`]) assert.equal(codeOf(hash), null);
  });
});

describe('window of a long list', () => {
  test('only what is seen and a few around are rows', () => {
    assert.deepEqual(windowOf(100_000, 36, 0, 720), { first: 0, end: 20 + AROUND });
    assert.deepEqual(windowOf(100_000, 36, 36_000, 720), { first: 1000 - AROUND, end: 1020 + AROUND });
    assert.deepEqual(windowOf(100_000, 36, 100_000 * 36 - 720, 720), { first: 100_000 - 20 - AROUND, end: 100_000 });
  });

  test('a short list, an empty one, and one that became shorter under its scroll', () => {
    assert.deepEqual(windowOf(3, 36, 0, 720), { first: 0, end: 3 });
    assert.deepEqual(windowOf(0, 36, 0, 720), { first: 0, end: 0 });
    assert.deepEqual(windowOf(5, 36, 100_000, 720), { first: 5, end: 5 });
    assert.deepEqual(windowOf(5, 36, -50, 720), { first: 0, end: 5 });
  });

  test('a list too tall for a browser is squeezed', () => {
    assert.equal(squeeze(100_000, 36), 1);
    assert.equal(squeeze(1_000_000, 36), 36e6 / TALLEST);
  });
});

describe('differences', () => {
  const show = (rows: ReturnType<typeof rowsOfTexts>): string[] => rows.map(({ kind, old, new: is }) => `${kind} ${old ? `${old.n}:${old.text}` : '-'} ${is ? `${is.n}:${is.text}` : '-'}`);

  test('a unified difference becomes two columns with the numbers of its lines', () => {
    const text = '--- plan.md@0\n+++ plan.md@1\n@@ -1,3 +1,4 @@\n first\n-second\n+2nd\n+more\n third\n@@ -10 +11,0 @@\n-gone\n';
    assert.deepEqual(show(rowsOfUnified(text)), ['same 1:first 1:first', 'changed 2:second 2:2nd', 'added - 3:more', 'same 3:third 4:third', 'head - -', 'removed 10:gone -']);
  });

  test('lines that look like heads are lines', () => {
    const text = '--- a\n+++ b\n@@ -1,2 +1,2 @@\n--- old rule\n+++ new rule\n same\n\\ No newline at end of file\n';
    assert.deepEqual(show(rowsOfUnified(text)), ['changed 1:-- old rule 1:++ new rule', 'same 2:same 2:same']);
  });

  test('a new file, and no difference', () => {
    assert.deepEqual(show(rowsOfUnified('--- /dev/null\n+++ a@0\n@@ -0,0 +1,2 @@\n+x\n+y\n')), ['added - 1:x', 'added - 2:y']);
    assert.deepEqual(rowsOfUnified(''), []);
  });

  test('two texts are compared by their common lines', () => {
    assert.deepEqual(show(rowsOfTexts('a\nb\nc\nd\n', 'a\nB\nc\nx\nd\n')), ['same 1:a 1:a', 'changed 2:b 2:B', 'same 3:c 3:c', 'added - 4:x', 'same 4:d 5:d']);
    assert.deepEqual(show(rowsOfTexts('', 'a\n')), ['added - 1:a']);
    assert.deepEqual(show(rowsOfTexts('a\n', '')), ['removed 1:a -']);
    assert.deepEqual(rowsOfTexts('', ''), []);
    assert.deepEqual(show(rowsOfTexts('x\na\ny\n', 'a\nz\n')), ['removed 1:x -', 'same 2:a 1:a', 'changed 3:y 2:z']);
  });

  test('every line of both texts is told once and in order, whatever they are', () => {
    let seed = 7;
    const next = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
    const text = (): string => Array.from({ length: next(12) }, () => `${'abcd'[next(4)]}\n`).join('');
    for (let run = 0; run < 2_000; run += 1) {
      const [before, after] = [text(), text()];
      const rows = rowsOfTexts(before, after);
      for (const [side, whole] of [['old', before], ['new', after]] as const) {
        const cells = rows.flatMap((row) => row[side] ?? []);
        assert.equal(cells.map((cell) => `${cell.text}\n`).join(''), whole);
        assert.deepEqual(cells.map((cell) => cell.n), cells.map((_, at) => at + 1));
      }
      for (const row of rows) if (row.kind === 'same') assert.equal(row.old!.text, row.new!.text);
    }
  });

  test('texts too long to compare whole are told by their ends', () => {
    const long = (mark: string): string => `start\n${Array.from({ length: 3_000 }, (_, at) => `${mark}${at}\n`).join('')}end\n`;
    const rows = rowsOfTexts(long('a'), long('b'));
    assert.equal(rows.length, 3_002);
    assert.equal(rows.filter(({ kind }) => kind === 'same').length, 2);
  });
});

describe('the first sentence', () => {
  const peer = (name: string, connected = true, inStep = true) => ({ name, connected, inStep });
  const say = (name: string, peers: ReturnType<typeof peer>[], paused = false): string => statements([{ name, paused, peers }])[0]!.text;

  test('it says what is in step with whom', () => {
    assert.equal(say('Notes', [peer('laptop'), peer('vps')]), 'Notes is in step with laptop and vps.');
    assert.equal(say('Notes', [peer('laptop'), peer('vps', false)]), 'Notes is in step with laptop; vps is away.');
    assert.equal(say('Notes', [peer('laptop', true, false), peer('vps')]), 'Notes is catching up with laptop.');
    assert.equal(say('Notes', [peer('a', false), peer('b', false)]), 'Notes waits for a and b, who are away.');
    assert.equal(say('Notes', []), 'Notes is on this node alone.');
    assert.equal(say('Notes', [peer('laptop')], true), 'Notes is paused.');
  });

  test('what is not in step comes first, what nobody shares last', () => {
    const spaces = [{ name: 'a', paused: false, peers: [peer('x')] }, { name: 'b', paused: false, peers: [] }, { name: 'c', paused: false, peers: [peer('x', true, false)] }];
    assert.deepEqual(statements(spaces).map(({ text }) => text[0]), ['c', 'a', 'b']);
  });

  test('it says what needs somebody', () => {
    assert.deepEqual([needs(0, 0), needs(1, 0), needs(2, 0), needs(1, 1)], ['', '1 conflict needs you.', '2 conflicts need you.', '1 conflict and 1 held change need you.']);
  });
});

describe('lines of a long log', () => {
  /** A log of lines 1 to `newest`, its door, and what was asked for. */
  const log = (newest: number) => {
    const asked: LinesFrom[] = [];
    const state = { newest, fails: false, asked };
    const page = async (from: LinesFrom) => {
      asked.push(from);
      if (state.fails) throw new Error('no answer');
      const first = from.since === undefined ? Math.max(1, (from.before ?? state.newest + 1) - 100) : from.since + 1;
      const end = Math.min(from.before ?? state.newest + 1, first + 100);
      const lines = Array.from({ length: Math.max(0, end - first) }, (_, at) => first + at);
      if (from.since === undefined) lines.reverse();
      return { lines, reached: lines.at(-1) ?? null, more: from.since === undefined ? first > 1 : end <= state.newest };
    };
    return { state, lines: new Lines(null, page, (line: number) => line) };
  };
  const never = (): boolean => false;
  const told = (): void => undefined;

  test('what is new does not begin with the first line of all when the first page did not come', async () => {
    const { state, lines } = log(5_000);
    state.fails = true;
    await assert.rejects(lines.next(never, told));
    state.fails = false;
    state.asked.length = 0;
    await lines.fresh(never, told);
    assert.deepEqual([state.asked, lines.rows?.length, lines.rows?.[0]], [[{}], 100, 5_000]);
    state.newest += 3;
    await lines.fresh(never, told);
    assert.deepEqual(lines.rows?.slice(0, 4), [5_003, 5_002, 5_001, 5_000]);
  });

  test('what goes on coming does not stay for good, and what went comes again by scrolling', async () => {
    const { state, lines } = log(50);
    await lines.next(never, told);
    assert.equal(lines.more, false);
    state.newest = 25_000;
    await lines.fresh(never, told);
    assert.deepEqual([lines.rows!.length, lines.rows![0], lines.rows!.at(-1), lines.more], [LINES_MOST, 25_000, 15_001, true]);
    await lines.next(never, told);
    state.newest += 1;
    await lines.fresh(never, told);
    assert.deepEqual([lines.rows!.length, lines.rows![0], lines.rows!.at(-1)], [LINES_MOST + 100, 25_001, 14_902], 'where somebody scrolled nothing more goes than came');
    await lines.next(never, told);
    assert.deepEqual(lines.rows!.slice(-2), [14_803, 14_802], 'without a gap');
  });
});

test('a list fetches one thing at a time, what is new first, and drops the next page after a failure', async () => {
  const told: string[] = [];
  const ends: ((error?: Error) => void)[] = [];
  const begun = (turn: string): Promise<void> => new Promise((resolve, reject) => {
    told.push(turn);
    ends.push((error) => (error ? reject(error) : resolve()));
  });
  const turns = new Turns(begun, (error) => told.push((error as Error).message));
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  void turns.take('next');
  for (const turn of ['next', 'fresh', 'next'] as const) void turns.take(turn);
  assert.deepEqual(told, ['next'], 'one at a time');
  ends.shift()!();
  await settled();
  assert.deepEqual(told, ['next', 'fresh'], 'what is new first');
  ends.shift()!(new Error('failed'));
  await settled();
  assert.deepEqual(told, ['next', 'fresh', 'failed'], 'the page that waited is not asked for by itself');
  void turns.take('next');
  assert.deepEqual(told.at(-1), 'next', 'and is when somebody scrolls again');
  void turns.take('fresh');
  turns.isOver = true;
  ends.shift()!(new Error('late'));
  await settled();
  assert.equal(told.length, 4, 'nobody looks any more');
});
