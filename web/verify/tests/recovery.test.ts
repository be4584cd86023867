import assert from 'node:assert/strict';
import { concat, type Bytes } from '../src/encoding/bytes.js';
import { readHead, readLedgerRecord, readRecord, Refused, Trust, verifyBundle, verifyHead } from '../src/index.js';
import { withVectors, type Vectors } from './support/vectors.js';

const bytes = (base64: string): Bytes => new Uint8Array(Buffer.from(base64, 'base64'));

// Proves: GW-106
withVectors('sealtide-recovery-1', 'a lost key that was replaced: who follows, and who does not', async (file) => {
  const [records, frames] = [file.records.map((it: Vectors) => readLedgerRecord(it, 'record')), file.frames.map((it: string) => readRecord(bytes(it)))];
  for (const { name, root, steps, expect } of file.cases) {
    const { root: own, ...rest } = file.trust;
    const trust = Trust.parse(JSON.stringify(root === null ? rest : { ...rest, root: root ?? own }));
    let refused: unknown = null;
    for (const step of steps) {
      assert.equal(refused, null, name);
      const pick = <T>(all: T[], numbers: number[]): T[] => numbers.map((at) => all[at]!);
      await trust.follow(pick(records, step.records), pick(frames, step.frames)).catch((error) => (refused = error));
    }
    if (refused !== null) assert.ok(refused instanceof Refused && refused.code === 'trust', `${name}: ${String(refused)}`);
    const recovered = trust.recovered && [trust.recovered.epoch, trust.recovered.frame];
    assert.deepEqual({ epoch: trust.epoch, recovered, refused: refused !== null }, expect, name);
    assert.deepEqual(Trust.parse(trust.toFile()).recovered, trust.recovered, name);
  }
  console.log(`recoveries: ${file.cases.length} cases`);
});

// Proves: GW-106, GW-110
withVectors('sealtide-recovery-1', 'bundles and heads of before and after a key was replaced', async ({ trust: text, frames, bundles, heads, now_ms: wallMs }) => {
  const bundle = (pieces: (string | number)[]): Bytes => concat(...pieces.map((it) => bytes(typeof it === 'number' ? frames[it] : it)));
  const [before, after] = [bundle(bundles.before), bundle(bundles.after)];
  const old = JSON.stringify(text);
  const { trust: first } = await verifyBundle(before, old, { wallMs });
  await verifyHead(first, readHead(heads.before), wallMs);
  await assert.rejects(verifyHead(first, readHead(heads.after), wallMs), { code: 'unknown_key' });
  for (const trust of [first, Trust.parse(old)]) {
    const { manifest, trust: learned } = await verifyBundle(after, trust, { wallMs });
    assert.deepEqual([manifest.content.version, manifest.content.keyVersion, learned.recovered?.epoch], ['1.1.0', 2, 2]);
    await verifyHead(learned, readHead(heads.after), wallMs);
    await assert.rejects(verifyHead(learned, readHead(heads.before), wallMs), { code: 'head_retired' });
    await verifyBundle(before, learned, { wallMs });
  }
  const { root: _, ...rootless } = text;
  await assert.rejects(verifyBundle(after, JSON.stringify(rootless), { wallMs }), { code: 'trust' });
});
