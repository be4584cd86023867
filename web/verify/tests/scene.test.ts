import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { BINARY, folder, Home, skip } from './support/binary.js';
import { Browser, skipBrowser } from './support/chromium.js';
import { mergeText } from './support/merge.js';
import { serve } from './support/serve.js';
import { withVectors } from './support/vectors.js';
import type { Scene } from './pages/scene.js';

const PAGE = readFileSync(join(dirname(fileURLToPath(import.meta.url)), '../pages/scene.js'), 'utf8');

// Proves: SY-60
withVectors('sealtide-textmerge-1', 'texts are merged as the rules say', ({ cases }) => {
  for (const { id, base, first, second, expect } of cases) assert.deepEqual(mergeText(base, first, second), expect, id);
  console.log(`text merge: ${cases.length} cases`);
});

/** A node that shares a folder. */
class Sharing {
  readonly home: Home;
  readonly notes: string;
  ticket = '';
  #process: ChildProcess | null = null;
  #exports = 0;

  constructor(name: string) {
    this.home = new Home(name);
    this.notes = join(folder, `${name}-files`, 'Notes');
    mkdirSync(this.notes, { recursive: true });
  }

  async up(...args: string[]): Promise<void> {
    const all = ['--json', '--home', this.home.path, 'up', ...args, '--listen', '127.0.0.1:0', '--gateway', '127.0.0.1:0'];
    this.#process = spawn(BINARY, all, { stdio: ['ignore', 'pipe', 'ignore'] });
    const lines = createInterface({ input: this.#process.stdout! });
    this.ticket = await new Promise((resolve, reject) => {
      lines.on('line', (line) => line.includes('sealtide/ready/1') && resolve(JSON.parse(line).ticket));
      lines.once('close', () => reject(new Error('the node ended')));
    });
  }

  async down(): Promise<void> {
    const gone = new Promise((resolve) => this.#process?.once('exit', resolve) ?? resolve(null));
    this.#process?.kill('SIGTERM');
    await gone;
    this.#process = null;
  }

  write(path: string, text: string): void {
    writeFileSync(join(this.notes, path), text);
  }

  read(path: string): string {
    return readFileSync(join(this.notes, path), 'utf8');
  }

  /** The space with all its history. */
  exported(): string {
    const out = `${this.notes}-${this.#exports++}.jsonl`;
    this.home.ok('export', 'Notes', '--format', 'jsonl', '--out', out);
    return readFileSync(out, 'utf8');
  }

  /** How many versions of a file there are. */
  versions(path: string): number {
    return this.home.ok('log', `Notes:${path}`).entries.length;
  }
}

/** What stands in an export, in no order. */
function linesOf(text: string): string {
  return text.split('\n').slice(1).sort().join('\n');
}

/** Waits for a fact; the runner ends what never comes true. */
async function until(fact: () => boolean): Promise<void> {
  while (!fact()) await new Promise((resolve) => setTimeout(resolve, 50));
}

const BEFORE = { 'plan.md': 'monday: buy bread\ntuesday: write\nwednesday: rest\n', 'todo.txt': 'fix the boat\ncall Ada\n' };

// Proves: SY-58, SY-106
test('what two nodes made of edits apart: a page of Chromium makes the same merged versions', { skip: skip || skipBrowser, timeout: 240_000 }, async () => {
  const [laptop, vps] = [new Sharing('laptop'), new Sharing('vps')];
  const browser = new Browser();
  try {
    for (const [path, text] of Object.entries(BEFORE)) laptop.write(path, text);
    await laptop.up(laptop.notes);
    vps.home.ok('join', laptop.ticket, vps.notes, '--wait');
    // In one file both say something else in other places, in the other one in the same place.
    laptop.write('plan.md', BEFORE['plan.md'].replace('bread', 'rolls'));
    laptop.write('todo.txt', 'fix the boat\ncall Ben\n');
    vps.write('plan.md', BEFORE['plan.md'].replace('rest', 'sail'));
    vps.write('todo.txt', 'fix the boat\ncall Cleo\n');
    await until(() => laptop.versions('plan.md') === 2 && laptop.versions('todo.txt') === 2);
    await vps.up();
    const isUnited = (node: Sharing): boolean => node.read('plan.md').includes('rolls') && node.read('plan.md').includes('sail');
    await until(() => [laptop, vps].every(isUnited) && laptop.read('todo.txt') === vps.read('todo.txt'));
    const files: Record<string, string> = { '/': '<!doctype html><script type="module" src="/scene.js"></script>', '/scene.js': PAGE };
    // Files are written before the other node knows that they were.
    await until(() => {
      for (const [name, node] of Object.entries({ laptop, vps })) files[`/${name}.jsonl`] = node.exported();
      return linesOf(files['/laptop.jsonl']!) === linesOf(files['/vps.jsonl']!);
    });
    const { base, close } = await serve(files);
    const found = (await browser.inPage(`${base}/`, 'scene()')) as Scene;
    close();
    assert.deepEqual(found.addresses[0], found.addresses[1]);
    assert.equal(found.merged.length, 2);
    for (const { address, again } of found.merged) assert.equal(again, address);
    const texts = found.merged.map(({ text, conflicts }) => [text, conflicts]).sort();
    assert.deepEqual(texts, [[laptop.read('plan.md'), 0], [laptop.read('todo.txt'), 1]].sort());
    assert.deepEqual(found.changed, ['gib_mismatch', 'gib_mismatch', 'gib_mismatch', 'gib_mismatch']);
    console.log(`scene: ${found.records} records of two nodes, ${found.merged.length} merged versions made again in Chromium`);
  } finally {
    await vps.down();
    await laptop.down();
    await browser.close();
  }
});
