import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { concat, utf8, type Bytes } from '../src/encoding/bytes.js';
import {
  encodeRecord, readBumpAnswer, readBundleHead, readHead, readRecord, readRegistry, Refused, REFUSED_CODES, Trust, verifyBumpAnswer, verifyBundle,
  verifyRegistry,
} from '../src/index.js';
import { PayloadCheck } from '../src/release/payload.js';
import { Home, skip } from './support/binary.js';
import { FILES, NOW, Publisher, tarOf, zstdOf } from './support/publisher.js';

const SCALE = Number(process.env['SEALTIDE_TEST_SCALE'] ?? '1');

/** Changes that are the same each time: a byte, a cut, a repetition, a foreign piece. */
class Mutations {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  below(end: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * end);
  }

  of(good: Bytes): Bytes {
    let odd = good.slice();
    for (let turns = 1 + this.below(3); turns > 0; turns--) {
      const at = this.below(odd.length || 1);
      switch (this.below(4)) {
        case 0:
          if (odd.length > 0) odd[at] = this.below(256);
          break;
        case 1:
          odd = odd.slice(0, at);
          break;
        case 2:
          odd = concat(odd.subarray(0, at), odd.subarray(this.below(odd.length || 1)));
          break;
        default:
          odd = concat(odd.subarray(0, at), Uint8Array.of(this.below(256), this.below(256)), odd.subarray(at));
      }
    }
    return odd;
  }
}

/** Foreign bytes are taken or refused, and nothing else ever happens. */
async function onlyRefuses(times: number, good: Bytes, call: (odd: Bytes) => unknown): Promise<number> {
  const mutations = new Mutations(times);
  let refused = 0;
  for (let turn = 0; turn < times * SCALE; turn++) {
    const odd = mutations.of(good);
    try {
      await call(odd);
    } catch (error) {
      assert.ok(error instanceof Refused, `${String(error)}\n${(error as Error).stack}\n${Buffer.from(odd).toString('latin1').slice(0, 300)}`);
      refused++;
    }
  }
  assert.ok(refused > 0, 'nothing was refused');
  return refused;
}

const latin1 = (bytes: Bytes): string => Buffer.from(bytes).toString('latin1');

test('foreign bytes are refused, whatever they are', async () => {
  const publisher = new Publisher();
  publisher.record('init', 1, { v1: 'active' }, [1]);
  const [trust, payload] = [publisher.trust(), zstdOf(tarOf(FILES))];
  const bundle = publisher.bundle(publisher.manifest(), payload);
  const counts = [
    await onlyRefuses(300, bundle, (odd) => verifyBundle(odd, trust, { wallMs: NOW })),
    await onlyRefuses(2000, bundle.slice(0, 2000), (odd) => {
      if (!readBundleHead(odd)) throw new Refused('not_a_bundle', 'short');
    }),
    await onlyRefuses(2000, utf8(trust), (odd) => Trust.parse(latin1(odd))),
    await onlyRefuses(2000, utf8(JSON.stringify(publisher.head({}))), (odd) => readHead(latin1(odd))),
    await onlyRefuses(3000, encodeRecord({ ib: 'note', data: { n: 1, isTjp: true, list: [1, 'a', null] }, rel8ns: { x: ['a^gib'] } }), (odd) => readRecord(odd)),
    await onlyRefuses(3000, utf8('{"success":true,"bumped":[{"id":"a"}],"signature":"AA==","keyVersion":"v2","alg":"Ed25519","kid":"0"}'), (odd) =>
      verifyBumpAnswer(latin1(odd), { pinned: new Uint8Array(32) }),
    ),
    await onlyRefuses(2000, utf8('{"app":"a","writer":"b","ledger":"c","revision":1,"entities":[],"registrySignature":"AA=="}'), (odd) =>
      verifyRegistry(latin1(odd), new Uint8Array(32)),
    ),
  ];
  console.log(`hostile: ${counts.join(', ')} refused`);
});

test('the codes are those that the README promises', () => {
  const readme = readFileSync(join(dirname(fileURLToPath(import.meta.url)), '../../README.md'), 'utf8');
  const [, section] = /\n## Codes\n([^]*?)\n## /.exec(readme)!;
  const promised = section!.split('\n').filter((line) => line.startsWith('|')).flatMap((line) => line.match(/`[a-z_]+`/g) ?? []);
  assert.deepEqual(promised, REFUSED_CODES.map((code) => `\`${code}\``));
});

test('deep and long texts end soon', async () => {
  const [deep, long] = ['['.repeat(200_000), `"${'a'.repeat(4_000_000)}`];
  for (const text of [deep, long, `{"a":${deep}`, `{"bumped":${deep}${']'.repeat(200_000)}}`, `{${long}`, `{"bumped":${long}`]) {
    assert.throws(() => Trust.parse(text), Refused);
    assert.throws(() => readHead(text), Refused);
    assert.throws(() => readBumpAnswer(text), Refused);
    assert.throws(() => readRegistry(text), Refused);
  }
});

// Proves: GW-72
test('a changed payload of the node is refused, whatever its blocks come to', { skip }, async () => {
  const files = { 'a.txt': 'hello', 'words.txt': 'to be or not to be, '.repeat(3000), 'list.csv': Array.from({ length: 4000 }, (_, at) => `${at},${at * at}\n`).join('') };
  const good = new Uint8Array(readFileSync(new Home('hostile').publish('1.0.0', files).bundle));
  const head = readBundleHead(good)!;
  const payload = good.slice(head.length);
  const check = (odd: Bytes): void => {
    const check = new PayloadCheck({ ...head.manifest.content, size: odd.length });
    check.push(odd);
    check.finish();
  };
  check(payload);
  const refused = await onlyRefuses(400, payload, check);
  // A change may put back what was there.
  assert.ok(refused > 390 * SCALE, `${refused} were refused`);
});
