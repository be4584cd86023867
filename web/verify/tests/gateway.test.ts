import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fromBase64 } from '../src/encoding/base64.js';
import { utf8, type Bytes } from '../src/encoding/bytes.js';
import { canonicalJson } from '../src/encoding/canonical.js';
import { fromHex } from '../src/encoding/hex.js';
import {
  LABELS, readBumpAnswer, readBundleHead, readHead, Seen, signedMessage, verifyBumpAnswer, verifyBundle, verifyHead, verifyRegistry, type Label,
} from '../src/index.js';
import { verifyEd25519 } from '../src/signature/ed25519.js';
import { verifyMlDsa87 } from '../src/signature/mldsa.js';
import { BINARY, folder, Home, skip } from './support/binary.js';
import type { Vectors } from './support/vectors.js';

/** A gateway of a home, until `close`. */
async function gateway(home: string): Promise<{ base: string; close: () => Promise<void> }> {
  const node = spawn(BINARY, ['--json', '--yes', 'gateway', 'run', '--listen', '127.0.0.1:0', '--home', home], { stdio: ['ignore', 'pipe', 'pipe'] });
  let error = '';
  node.stderr.on('data', (bytes) => (error += bytes));
  const gone = new Promise<void>((resolve) => node.once('exit', () => resolve()));
  const base = await new Promise<string>((resolve, reject) => {
    let told = '';
    node.stdout.on('data', (bytes) => {
      told += bytes;
      if (told.includes('\n')) resolve(JSON.parse(told.split('\n')[0]!).gateway);
    });
    void gone.then(() => reject(new Error(error)));
  });
  const close = async (): Promise<void> => {
    node.kill('SIGTERM');
    await gone;
    assert.ok(!error.includes('panicked'), error);
  };
  return { base, close };
}

// Proves: GW-43, GW-88
test('answers of a running gateway are checked', { skip }, async () => {
  const home = new Home('gateway');
  home.publish('1.0.0', { a: '1' });
  home.ok('keys', 'new');
  home.ok('keys', 'rotate');
  const { chain } = readBundleHead(new Uint8Array(readFileSync(home.publish('1.1.0', { a: '2' }).bundle)))!;
  const record = chain.at(-1)!;
  const pinned = record.pairOf(2)!.ed25519;
  const { base, close } = await gateway(home.path);
  try {
    const bump = async (body: object): Promise<string> => {
      const { token } = (await (await fetch(`${base}/api/auth/csrf-token`)).json()) as { token: string };
      const headers = { 'content-type': 'application/json', 'x-csrf-token': token };
      return (await fetch(`${base}/version/bump`, { method: 'POST', headers, body: JSON.stringify(body) })).text();
    };
    const answer = await bump({ scope: 'patch', crypto: 'ed25519' });
    assert.equal(readBumpAnswer(answer).state, 'signed, key not pinned');
    const checked = await verifyBumpAnswer(answer, { pinned });
    assert.deepEqual([checked.state, checked.keyVersion, checked.alg], ['verified', 'v2', 'Ed25519']);
    const changed = answer.replace('"currentVersion":"1.0.1"', '"currentVersion":"1.0.2"');
    assert.notEqual(changed, answer);
    await assert.rejects(verifyBumpAnswer(changed, { pinned }), { code: 'bad_signature' });
    await assert.rejects(verifyBumpAnswer(answer, { pinned: record.pairOf(1)!.ed25519 }), { code: 'unknown_key' });
    await assert.rejects(verifyBumpAnswer(await bump({ dryRun: true }), { pinned }), { code: 'not_signed' });
    // By HMAC: with the secret of the version, which the home holds.
    const byHmac = await bump({ scope: 'minor' });
    const secret = secretOf(readFileSync(`${home.path}/gateway.key`, 'utf8'), 'v2');
    assert.equal(readBumpAnswer(byHmac).state, 'signed, key not pinned');
    assert.equal((await verifyBumpAnswer(byHmac, { secret })).state, 'verified');
    await assert.rejects(verifyBumpAnswer(byHmac, { secret: new Uint8Array(32) }), { code: 'bad_signature' });
    await assert.rejects(verifyBumpAnswer(byHmac, { pinned }), { code: 'unknown_key' });
    const registry = (await (await fetch(`${base}/version/registry`)).json()) as Record<string, never>;
    const envelope = { ...registry, app: 'default', writer: record.node, ledger: record.ledger! };
    assert.equal((await verifyRegistry(envelope, pinned)).state, 'verified');
    await assert.rejects(verifyRegistry({ ...envelope, revision: 1 }, pinned), { code: 'bad_signature' });
  } finally {
    await close();
  }
});

// Proves: LK-7, SY-86
test('checkpoints of the audit are signed under their own label', { skip }, async () => {
  const home = new Home('audit');
  home.publish('1.0.0', { a: '1' });
  const { base, close } = await gateway(home.path);
  // A gateway has signing keys at hand, so its checkpoints have two signatures.
  await (await fetch(`${base}/api/auth/csrf-token`)).text();
  await close();
  const path = join(folder, 'audit.jsonl');
  home.ok('audit', 'export', '--out', path);
  const lines: Vectors[] = readFileSync(path, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  const { key, ed25519 } = lines[0];
  const checkpoints = lines.map((line) => line.checkpoint).filter(Boolean);
  let both = 0;
  for (const { signatures, ...checkpoint } of checkpoints) {
    const content = utf8(canonicalJson(checkpoint)!);
    for (const { alg, kid, sig } of signatures) {
      const verifies = async (label: Label): Promise<boolean> => {
        const message = signedMessage(label, content);
        if (alg === 'ML-DSA-87') return verifyMlDsa87(fromBase64(key)!, message, fromBase64(sig)!);
        return verifyEd25519(fromBase64(ed25519[kid])!, message, fromBase64(sig)!);
      };
      for (const label of LABELS) assert.equal(await verifies(label), label === 'audit1 checkpoint', `${alg} as ${label}`);
    }
    both += signatures.length === 2 ? 1 : 0;
  }
  assert.ok(both > 0);
  console.log(`audit: ${checkpoints.length} checkpoints, ${both} of them by two keys`);
});

// Proves: GW-104
test('heads and bundles of a running gateway are checked', { skip }, async () => {
  const home = new Home('door');
  const first = home.publish('1.0.0', { a: '1' });
  home.publish('1.1.0', { a: '2' });
  const { base, close } = await gateway(home.path);
  try {
    const [head, body] = [await fetch(`${base}/bundle/kiosk/head/stable`), await fetch(`${base}/bundle/kiosk/1.1.0`)];
    assert.deepEqual([head.status, body.status], [200, 200]);
    const [told, { manifest, trust }] = [readHead(await head.text()), await verifyBundle(body.body!, readFileSync(first.trust, 'utf8'))];
    const newest = await verifyHead(trust, told, Date.now());
    const [seen, wanted] = [new Seen(), { name: 'kiosk', channel: 'stable' }];
    seen.admit(newest, manifest, wanted, Date.now());
    seen.see(newest, Date.now());
    const older = await verifyBundle((await fetch(`${base}/bundle/kiosk/1.0.0`)).body!, trust);
    assert.throws(() => seen.admit(newest, older.manifest, wanted, Date.now()), { code: 'not_of_head' });
    await assert.rejects(verifyHead(trust, told, told.content.notAfter), { code: 'head_expired' });
    const swapped = { ...told, bytes: told.bytes.slice().fill(65, 20, 21) };
    await assert.rejects(verifyHead(trust, swapped, Date.now()), { code: 'bad_signature' });
  } finally {
    await close();
  }
});

/** The raw secret of a version in a key file. */
function secretOf(file: string, version: string): Bytes {
  const digits = new RegExp(`^key ${version} ([0-9a-f]{64})$`, 'm').exec(file)?.[1];
  assert.ok(digits, 'the key file has another form');
  return fromHex(digits)!;
}
