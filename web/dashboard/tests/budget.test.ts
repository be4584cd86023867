import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { gzipSync } from 'node:zlib';
import { DIST, skipPage } from './support/dist.js';

/** Bytes of the first load, gzipped. */
const BUDGET = 250 * 1024;

function read(name: string): string {
  return readFileSync(join(DIST, name), 'utf8');
}

test('the first load keeps its budget', { skip: skipPage }, () => {
  const page = read('index.html');
  const named = [...page.matchAll(/(?:src|href)="\.\/([^"]+)"/g)].map(([, name]) => name!);
  assert.ok(named.some((name) => name.endsWith('.js')) && named.some((name) => name.endsWith('.css')));
  // What a script imports at once is loaded with it.
  const loaded = new Set(named);
  for (const name of loaded) {
    if (!name.endsWith('.js')) continue;
    for (const [, other] of read(name).matchAll(/(?:from|import)\s*["']\.\/([^"']+\.js)["']/g)) loaded.add(`assets/${other}`);
  }
  const sizes = ['index.html', ...loaded].map((name) => gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  console.log(`first load: ${total} bytes gzipped in ${sizes.length} files, of ${BUDGET}`);
  assert.ok(total < BUDGET);
});

test('the verifier and the charts are loaded only where they are used', { skip: skipPage }, () => {
  const page = read('index.html');
  const rest = readdirSync(join(DIST, 'assets')).filter((name) => name.endsWith('.js') && !page.includes(name));
  assert.ok(rest.some((name) => read(`assets/${name}`).includes('ML-DSA-87')), 'the verifier stands by itself');
  assert.ok(rest.some((name) => name.startsWith('uPlot')), 'the charts stand by themselves');
});

test('nothing in the page is inline, absolute or foreign', { skip: skipPage }, () => {
  const page = read('index.html');
  assert.doesNotMatch(page, /<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)/);
  for (const [, address] of page.matchAll(/(?:src|href)="([^"]+)"/g)) assert.match(address!, /^\.\//);
  for (const name of readdirSync(join(DIST, 'assets'))) {
    if (name.endsWith('.js')) assert.doesNotMatch(read(`assets/${name}`), /\beval\(|new Function\(/, name);
    if (name.endsWith('.css')) assert.doesNotMatch(read(`assets/${name}`), /@import|url\((?!["']?(?:\.\/|data:))/, name);
  }
});
