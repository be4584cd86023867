import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { sha256 } from '@noble/hashes/sha2.js';
import { fromBase64 } from '../src/encoding/base64.js';
import { concat, utf8, type Bytes } from '../src/encoding/bytes.js';
import { hex } from '../src/encoding/hex.js';
import type { JsonObject } from '../src/encoding/json.js';
import { run } from '../src/command.js';
import {
  encodeRecord, gibOf, keyringAuthority, orderKey, readBundleHead, readHead, readLedgerRecord, readRecord, Refused, sha256v1, sid, Trust, verifyBundle,
  verifyCommitStone, verifyHead, verifyTimeline, type IbGib, type VerifiedRecord,
} from '../src/index.js';
import { file, folder, Home, nodeSays, sealtide, skip } from './support/binary.js';
import { FILES, Publisher, tarOf, zstdOf } from './support/publisher.js';
import { extended, type Vectors } from './support/vectors.js';

const SCALE = Number(process.env['SEALTIDE_TEST_SCALE'] ?? '1');

function bytesOf(path: string): Bytes {
  return new Uint8Array(readFileSync(path));
}

/** What the verifier says of a bundle, as {@link nodeSays} does: by its command. */
async function verifierSays(bundle: string, trust: string): Promise<string> {
  const { exit, out } = await run([bundle, '--trust', trust, '--json']);
  return exit === 0 ? 'authentic' : `${exit} ${JSON.parse(out).error.code}`;
}

/** Both say the same of a bundle; what they say. */
async function bothSay(bundle: string, trust: string, what: string): Promise<string> {
  const [node, verifier] = [nodeSays(bundle, trust), await verifierSays(bundle, trust)];
  assert.equal(verifier, node, what);
  return node;
}

// Proves: GW-106, GW-110, SY-86
test('rotations and roll-backs of a publisher are followed', { skip }, async () => {
  const home = new Home('rotations');
  const files = { 'a.txt': 'hello', 'bin/run.sh': '#!/bin/sh\n', [`long/${'n'.repeat(120)}`]: 'x'.repeat(3000), empty: '' };
  const made = [home.publish('1.0.0', files)];
  home.ok('keys', 'new');
  home.ok('keys', 'rotate');
  made.push(home.publish('1.1.0', files));
  home.ok('keys', 'rollback');
  made.push(home.publish('1.2.0', { ...files, 'a.txt': 'rolled back' }));
  home.ok('keys', 'rotate');
  home.ok('keys', 'new');
  home.ok('keys', 'rotate');
  made.push(home.publish('2.0.0', files));
  const [first, last] = [made[0]!, made.at(-1)!];
  const versions = new Set<string>();
  for (const { bundle, trust, told } of made) {
    versions.add(told.key_version);
    assert.equal(await bothSay(bundle, first.trust, 'with the first trust file'), 'authentic');
    assert.equal(await bothSay(bundle, trust, 'with its own trust file'), 'authentic');
    const verified = await verifyBundle(bytesOf(bundle), readFileSync(first.trust, 'utf8'));
    assert.equal(verified.manifest.sha256, told.manifest);
    // What was learned is a trust file that the node takes.
    assert.equal(nodeSays(bundle, file('learned.root', verified.trust.toFile())), 'authentic');
  }
  assert.deepEqual([...versions], ['v1', 'v2', 'v1', 'v3'].filter((it, at, all) => all.indexOf(it) === at));
  // Later trust files know the earlier pairs, too.
  for (const [at, { trust }] of made.entries()) {
    for (const { bundle } of made.slice(0, at)) assert.equal(await bothSay(bundle, trust, 'an old bundle with a new trust file'), 'authentic');
  }
  // An old client that saw the newest chain still takes an old bundle.
  const { trust } = await verifyBundle(bytesOf(last.bundle), readFileSync(first.trust, 'utf8'));
  await verifyBundle(bytesOf(first.bundle), trust);
  const { told } = home.publish('2.1.0', files);
  assert.equal(told.key_version, 'v3');
  console.log(`rotations: epoch ${trust.epoch}, ${made.length} bundles`);
});

// Proves: GW-107
test('a version that was given up: both verifiers refuse alike', { skip }, async () => {
  const home = new Home('compromised');
  const first = home.publish('1.0.0', { a: '1' });
  const second = home.publish('1.1.0', { a: '2' });
  home.ok('keys', 'new');
  home.ok('keys', 'retire', 'v1', '--compromised', '--yes');
  const third = home.publish('1.2.0', { a: '3' });
  const { trust } = await verifyBundle(bytesOf(third.bundle), readFileSync(first.trust, 'utf8'));
  const learned = file('compromised.root', trust.toFile());
  assert.equal(await bothSay(second.bundle, learned, 'the last good one'), 'authentic');
  // The manifest between is not in the file, so nothing says that it is before the last good one.
  assert.equal(await bothSay(first.bundle, learned, 'the one before'), '5 key_compromised');
  const between = readBundleHead(bytesOf(second.bundle))!.manifest;
  await verifyBundle(bytesOf(first.bundle), trust, { earlier: [between] });
});

// Proves: GW-106
test('a lost key is replaced with the words: both verifiers follow, and neither what nobody proves', { skip }, async () => {
  const home = new Home('lost');
  const words = join(folder, 'lost.words');
  home.ok('init', '--recovery-out', words);
  const first = home.publish('1.0.0', { a: '1' });
  rmSync(join(home.path, 'gateway.key'));
  const recovered = sealtide(['keys', 'recover', '--home', home.path], readFileSync(words, 'utf8'));
  assert.equal(recovered.code, 0, recovered.error);
  const second = home.publish('1.1.0', { a: '2' });
  assert.equal(second.told.key_version, 'v2');
  for (const { bundle } of [first, second]) assert.equal(await bothSay(bundle, first.trust, 'with the first trust file'), 'authentic');
  const text = readFileSync(first.trust, 'utf8');
  const { trust } = await verifyBundle(bytesOf(second.bundle), text);
  assert.deepEqual([trust.epoch, trust.recovered?.epoch], [2, 2]);
  // What was learned is a trust file that the node takes, and the other way round.
  const learned = file('recovered.root', trust.toFile());
  for (const { bundle } of [first, second]) assert.equal(await bothSay(bundle, learned, 'with what was learned'), 'authentic');
  assert.deepEqual(Trust.parse(trust.toFile()).recovered, trust.recovered);

  const { root, ...rootless } = JSON.parse(text);
  assert.equal(await bothSay(second.bundle, file('rootless.root', JSON.stringify(rootless)), 'without a root'), '5 trust');
  const strange = JSON.stringify({ ...rootless, root: `keystone^${'AB'.repeat(32)}` });
  assert.equal(await bothSay(second.bundle, file('strange.root', strange), 'another root'), '5 trust');

  const { proof, chain } = readBundleHead(bytesOf(second.bundle))!;
  const named = [[chain.at(-1)!.sha256, proof.length - 1]];
  assert.deepEqual([...keyringAuthority(root, proof)], named);
  assert.deepEqual([...keyringAuthority(root, [...proof].reverse())], named, 'in any order');
  for (const left of proof) assert.equal(keyringAuthority(root, proof.filter((it) => it !== left)).size, 0, 'a frame is left out');
  // The managing frame with one thing changed, hashed again: nothing of it can be moved.
  const managing = proof.at(-1)!;
  const change = (edit: (data: any) => void): VerifiedRecord => {
    const data = structuredClone(managing.record.data);
    edit(data);
    const { gib: _, ...record } = managing.record;
    return readRecord(encodeRecord({ ...record, data }));
  };
  const edits: ((data: any) => void)[] = [
    (data) => (data.keyring = '00'.repeat(32)),
    (data) => delete data.keyring,
    (data) => (data.n += 1),
    (data) => (data.uuid = '00'.repeat(32)),
    (data) => (data.timestamp = 'Thu, 01 Jan 1970 00:00:00 GMT'),
    (data) => (data.proofs[0].claim.verb = 'delegate'),
    (data) => (data.proofs[0].claim.target = root),
    (data) => (data.proofs[0].solutions[0].value = 'ab'.repeat(32)),
    (data) => data.proofs[0].solutions.reverse(),
    (data) => data.proofs[0].solutions.pop(),
    (data) => data.proofs.push(data.proofs[0]),
    (data) => data.challengePools.pop(),
    (data) => (data.challengePools[1].config.allowedVerbs = ['delegate']),
    (data) => (data.challengePools[1].config.stBind = 1),
    (data) => (data.st.sig = data.st.sig.replace(/^./, (it: string) => (it === 'A' ? 'B' : 'A'))),
    (data) => (data.st.kid = '00'.repeat(16)),
    (data) => delete data.st,
    (data) => (data.more = 1),
  ];
  for (const edit of edits) {
    const odd = change(edit);
    assert.equal(keyringAuthority(root, [...proof.slice(0, -1), odd]).size, 0, String(edit));
    assert.equal(keyringAuthority(root, [...proof, odd]).size, 1, `beside the good one: ${String(edit)}`);
  }
});

/** Numbers from 0 to below 1, the same ones each time. */
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state / 2 ** 32;
  }
}

// Proves: GW-72, GW-103
test('bytes changed in every part of a bundle: both verifiers say the same word', { skip }, async () => {
  const home = new Home('tampered');
  home.publish('1.0.0', { a: 'before' });
  home.ok('keys', 'new');
  home.ok('keys', 'rotate');
  const random = Uint8Array.from({ length: 60_000 }, (_, at) => (at * at * 31) >> 7);
  const { bundle, trust } = home.publish('1.1.0', { 'a.txt': 'hello', 'big.bin': random, 'words.txt': 'to be or not '.repeat(4000) });
  const good = bytesOf(bundle);
  const head = readBundleHead(good)!;
  const at = (text: string, from = 0): number => {
    const found = Buffer.from(good).indexOf(text, from, 'latin1');
    assert.ok(found >= 0, text);
    return found;
  };
  const manifest = at('{"archiveDate"');
  const kid = at(head.manifest.signatures[0]!.kid, manifest);
  const edKid = at(head.manifest.signatures[1]!.kid, kid);
  const chain = at('{"action"');
  const cases = new Map<string, number>([
    ['the array', 0], ['the magic', 3], ['the length of the manifest', 7], ['its brace', manifest], ['a hash', at('"hash":"', manifest) + 10],
    ['the version', at('"version":"1.1.0"', manifest) + 13], ['the channel', at('"stable"', manifest) + 2], ['a path', at('words.txt', manifest)],
    ['a time', at('"createdAt":"', manifest) + 16], ['the registry', at('"releases^', manifest) + 12],
    ['a kid', kid], ['an algorithm', at('ML-DSA-87', kid)], ['the first signature', kid + 100], ['its end', edKid - 10],
    ['the other kid', edKid + 3], ['the other algorithm', at('Ed25519', edKid)], ['the other signature', edKid + 40],
    ['a member of a record', chain + 3], ['an action', at('"action":"', chain) + 10], ['a key of a record', at('publicKey":"', chain) + 400],
    ['the node of a record', at('"node":"stn1', chain) + 20], ['an epoch', at('"epoch":', chain) + 8],
    ['a signature of the node', at('"sig":"', chain) + 60], ['a prev', at('"prev":"', chain) + 12],
    ['the frame', head.length], ['its header', head.length + 4], ['a block', head.length + 8], ['the payload', head.length + 2000],
    ['its last byte', good.length - 1], ['the byte before', good.length - 5],
  ]);
  const random01 = numbers(7);
  for (let more = 0; more < 24 * SCALE; more++) cases.set(`byte ${more}`, Math.floor(random01.next().value * good.length));
  const words = new Map<string, number>();
  const note = (word: string): void => void words.set(word, (words.get(word) ?? 0) + 1);
  for (const [what, place] of cases) {
    for (const bit of [1, 32]) {
      const odd = good.slice();
      odd[place]! ^= bit;
      note(await bothSay(file('odd.stb', odd), trust, `${what}, byte ${place} ^ ${bit}`));
    }
  }
  const cuts: [string, Uint8Array][] = [
    ['nothing', new Uint8Array(0)], ['another file', utf8('#!/bin/sh\n')], ['a head cut short', good.slice(0, head.length - 9)],
    ['no payload', good.slice(0, head.length)], ['a payload cut short', good.slice(0, -1)], ['something behind', concat(good, utf8('x'))],
    ['twice', concat(good, good)],
  ];
  for (const [what, odd] of cuts) note(await bothSay(file('odd.stb', odd), trust, what));
  for (const word of ['5 not_a_bundle', '5 bad_signature', '5 unknown_key', '5 trust', '5 payload', '5 other_registry']) {
    assert.ok(words.has(word), `nothing was refused with ${word}`);
  }
  console.log(`tampered: ${[...words].map(([word, count]) => `${count} × ${word}`).join(', ')}`);
});

test('trust files: both verifiers say the same word', { skip }, async () => {
  const home = new Home('trusts');
  const other = new Home('others');
  const { bundle, trust } = home.publish('1.0.0', { a: '1' });
  const good = readFileSync(trust, 'utf8');
  const value = JSON.parse(good) as { keys: JsonObject[]; registry: string };
  const changed = (change: object): string => file('odd.root', JSON.stringify({ ...value, ...change }));
  assert.equal(await bothSay(bundle, changed({}), 'as it is'), 'authentic');
  assert.equal(await bothSay(bundle, other.publish('9.0.0', { a: '1' }).trust, 'of another publisher'), '5 other_registry');
  assert.equal(await bothSay(bundle, changed({ registry: 'releases^x' }), 'another registry'), '5 other_registry');
  assert.equal(await bothSay(bundle, changed({ epoch: 9 }), 'another epoch'), 'authentic');
  for (const odd of [{ schema: 'x' }, { more: 1 }, { keys: [] }, { keys: [...value.keys].reverse() }, { epoch: 0 }, { root: 'x' }, { learned: {} }]) {
    assert.equal(await bothSay(bundle, changed(odd), JSON.stringify(odd).slice(0, 60)), '2 trust');
  }
  const without = await run([bundle, '--json']);
  assert.deepEqual([without.exit, JSON.parse(without.out).error.code], [6, 'no_trust']);
  assert.equal(sealtide(['release', 'verify', bundle, '--home', join(folder, 'no-home')]).code, 6);
  // The command as people call it.
  const command = join(dirname(fileURLToPath(import.meta.url)), '../../bin/sealtide-verify.mjs');
  const odd = file('short.stb', bytesOf(bundle).slice(0, -1));
  const calls: [string[], number, RegExp][] = [
    [[bundle, '--trust', trust], 0, /^kiosk 1\.0\.0 .* is authentic; freshness not checked\n$/], [[odd, '--trust', trust], 5, /short\.stb: its payload has/],
    [[bundle], 6, /--trust FILE/], [[], 2, /name one FILE/], [['--what'], 2, /--what/], [[bundle, '--trust', bundle], 2, /no trust file/],
    [[`${bundle}-not`, '--trust', trust], 1, /ENOENT/], [['--help'], 0, /Usage/],
  ];
  for (const [args, code, words] of calls) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' });
    assert.deepEqual([status, words.test(stdout + stderr)], [code, true], `${args.join(' ')}: ${stdout} ${stderr}`);
  }
});

// Proves: GW-72, GW-103, GW-105, GW-106
test('what is made here from the specification alone is taken by the node, and its faults are refused alike', { skip }, async () => {
  const publisher = new Publisher([1, 2]);
  publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  const payload = zstdOf(tarOf(FILES));
  const trust = file('made.root', publisher.trust());
  const say = (bundle: Uint8Array, what: string, with_ = trust): Promise<string> => bothSay(file('made.stb', bundle), with_, what);
  assert.equal(await say(publisher.bundle(publisher.manifest(), payload), 'v1'), 'authentic');
  assert.equal(await say(publisher.bundle(publisher.manifest(), payload, 1, []), 'no chain'), 'authentic');
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { notAfter: { v1: '2199-01-01T00:00:00Z' } });
  assert.equal(await say(publisher.bundle(publisher.manifest(FILES, { keyVersion: 'v2' }), payload, 2), 'v2'), 'authentic');
  assert.equal(await say(publisher.bundle(publisher.manifest(), payload), 'v1 in its grace'), 'authentic');
  publisher.record('rollback', 1, { v1: 'active', v2: 'verify-only' }, [2, 1]);
  assert.equal(await say(publisher.bundle(publisher.manifest(), payload), 'rolled back'), 'authentic');
  const learned = Trust.parse(publisher.trust());
  await learned.follow(readBundleHead(publisher.bundle(publisher.manifest(), payload))!.chain);
  assert.equal(await say(publisher.bundle(publisher.manifest(), payload), 'learned', file('learned.root', learned.toFile())), 'authentic');
  const rows: [string, string, Uint8Array][] = [
    ['the wrong key version', '5 key_version', publisher.bundle(publisher.manifest(FILES, { keyVersion: 'v2' }), payload)],
    ['another registry', '5 other_registry', publisher.bundle(publisher.manifest(FILES, { registry: 'releases^x' }), payload)],
    ['a file changed', '5 payload', publisher.bundle(publisher.manifest(FILES, {}, payload), zstdOf(tarOf(FILES).map((byte, at) => (at === 512 ? byte ^ 1 : byte))))],
    ['a way out', '5 not_a_bundle', publisher.bundle(publisher.manifest([{ ...FILES[0]!, path: '../a' }]), payload)],
    ['no such version', '5 not_a_bundle', publisher.bundle(publisher.manifest(FILES, { version: '1' }), payload)],
    ['an unknown member', '5 not_a_bundle', publisher.bundle(publisher.manifest(FILES, { more: 1 }), payload)],
    ['a skipped record', '5 trust', publisher.bundle(publisher.manifest(), payload, 1, [publisher.records[0]!, publisher.records[2]!])],
  ];
  for (const [what, expected, bundle] of rows) assert.equal(await say(bundle, what), expected, what);
  const ended = new Publisher([1, 2]);
  ended.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  ended.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { notAfter: { v1: 1 } });
  assert.equal(await say(ended.bundle(ended.manifest(), payload), 'a pair past its date'), '5 key_expired');
  ended.record('expire', 2, { v1: 'expired', v2: 'active' }, [2]);
  assert.equal(await say(ended.bundle(ended.manifest(), payload), 'an expired pair'), '5 key_expired');
});

// Proves: SY-1, SY-14, LK-7, GW-106
test('a space of the node: every record, every timeline, its ledger and its heads', { skip }, async () => {
  const home = new Home('space');
  const first = home.publish('1.0.0', { a: '1' });
  home.ok('keys', 'new');
  home.ok('keys', 'rotate');
  home.publish('1.1.0', { a: '2' });
  const path = join(folder, 'space.jsonl');
  home.ok('export', 'kiosk', '--format', 'jsonl', '--out', path);
  const rows: Vectors[] = readFileSync(path, 'utf8').trim().split('\n').map((line) => JSON.parse(line)).filter((row) => row.ib !== undefined);
  const timelines = new Map<string, VerifiedRecord[]>();
  const all: VerifiedRecord[] = [];
  for (const { base64, ...row } of rows) {
    const record = readRecord(encodeRecord(base64 === undefined ? row : { ...row, data: fromBase64(base64)! }));
    all.push(record);
    if (record.frame) timelines.set(record.frame.tjp, [...(timelines.get(record.frame.tjp) ?? []), record]);
  }
  // Stones of its commits, by the key that its audit names.
  const audit = join(folder, 'space-audit.jsonl');
  home.ok('audit', 'export', '--out', audit);
  const nodeKey = fromBase64(JSON.parse(readFileSync(audit, 'utf8').split('\n')[0]!).key)!;
  const stones = all.filter((it) => it.record.ib === 'commit');
  for (const stone of stones) {
    const tips = (stone.record.rel8ns!['tip'] ?? []).map((address) => all.find((it) => it.address === address)!.sid);
    assert.equal(verifyCommitStone(stone, nodeKey, tips).tips.length, tips.length);
    assert.throws(() => verifyCommitStone(stone, nodeKey, [...tips, tips[0]!]), { code: 'bad_commit' });
    const later = { ...stone, record: { ...stone.record, data: { ...(stone.record.data as JsonObject), at: 0 } } };
    assert.throws(() => verifyCommitStone(later, nodeKey), { code: 'bad_signature' });
    assert.throws(() => verifyCommitStone({ ...stone, record: { ...stone.record, ib: 'note' } }, nodeKey), { code: 'bad_commit' });
  }
  assert.ok(stones.length > 0);
  const trust = Trust.parse(readFileSync(first.trust, 'utf8'));
  const sorted = [...timelines.values()].map((frames) => frames.sort((left, right) => left.frame!.n - right.frame!.n));
  const dataOf = (record: VerifiedRecord): JsonObject => record.record.data as JsonObject;
  const of = (ib: string): VerifiedRecord[] => sorted.find((frames) => frames[0]!.record.ib === ib) ?? [];
  for (const frames of sorted) assert.equal(verifyTimeline(frames.map((it) => it.encoded)).length, frames.length);
  await trust.follow(of('keys').map((it) => readLedgerRecord(dataOf(it)['record'], it.address)));
  assert.ok(trust.epoch > 1);
  const [newest, old] = [of('channel').at(-1)!, of('channel')[0]!].map((it) => readHead(dataOf(it)['head']!));
  await verifyHead(trust, newest!, Date.now());
  await assert.rejects(verifyHead(trust, old!, Date.now()), { code: 'head_retired' });
  console.log(`space: ${rows.length} records, ${stones.length} commits, ${sorted.length} timelines, epoch ${trust.epoch}`);
});

const BYTES = hex(sha256(Uint8Array.of(0, 255)));

/** Binaries, manifests and pages, good ones and odd ones. */
function binaries(): Vectors[] {
  const [h, big] = ['ab'.repeat(32), 4_194_304];
  const manifest = (change: object, rel8ns?: object): Vectors => ({
    ib: `bin ${h} `,
    data: { bin: { v: 2, size: big + 1, hash: h, chunks: [[big, h], [1, h]], ...change } },
    ...(rel8ns ? { rel8ns } : {}),
  });
  const page = `binpage^${'AB'.repeat(32)}`;
  return [
    { ib: `bin ${BYTES} `, data: { $b: '00ff' } }, { ib: `bin ${BYTES} `, data: { $b: '00fe' } }, { ib: `bin ${BYTES} txt`, data: { $b: '00fe' } },
    { ib: `bin ${BYTES} ` }, { ib: 'binpage' }, { ib: 'binpage', data: { chunks: [[1, h]] } }, { ib: 'binpage', data: { chunks: [] } },
    { ib: 'binpage', data: { chunks: [[0, h]] } }, { ib: 'binpage', data: { chunks: [[1, h, 1]] } }, { ib: 'binpage', data: { $b: '00' } },
    manifest({}), manifest({ v: 1 }), manifest({ size: big }), manifest({ hash: 'cd'.repeat(32) }), manifest({ chunks: [[big + 1, h]] }),
    manifest({ chunks: [[1, 'AB'.repeat(32)]] }), manifest({ more: 1 }), manifest({}, { page: [page] }), manifest({ size: 1.5 }),
    manifest({ chunks: undefined, pages: [[big + 1, page]] }, { page: [page] }), manifest({ chunks: undefined, pages: [[big + 1, page]] }),
    manifest({ chunks: undefined, pages: [[big, page], [1, page]] }, { page: [page] }), manifest({ chunks: undefined, pages: [[big + 1, 'a^gib']] }, { page: ['a^gib'] }),
  ];
}

/** Records of every shape, some of them odd. */
function records(count: number): Vectors[] {
  const values = ['', 'a', 'é', '😀', '\u2028', 0, -0, 1, -1.5, 1e21, 1e-7, 2 ** 53, true, false, null, [], {}, [1, { b: 1, a: 2 }], { 10: 'x', 9: 'y', a: { $u: 1 } }, { $b: '00ff' }, { $b: '' }];
  const random01 = numbers(11);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random01.next().value * list.length)]!;
  const address = (): string => pick(['a^gib', `b^${'AB'.repeat(32)}`, `c^${'CD'.repeat(32)}.${'AB'.repeat(32)}`, 'no', `d^${'ef'.repeat(16)}`]);
  return Array.from({ length: count }, () => {
    const record: Vectors = { ib: pick(['note', 'a b', 'é', 'x^y', '\u0001', 'tag 😀', 'bin x ', 'binpage', `bin ${BYTES} `]) };
    if (random01.next().value < 0.1) return pick(binaries());
    if (random01.next().value < 0.8) record.data = pick([...values, { n: pick(values), isTjp: pick(values), text: pick(values), z: pick(values), a: pick(values) }]);
    if (random01.next().value < 0.6) {
      record.rel8ns = {};
      for (const name of ['past', 'tjp', 'ancestor', 'x']) if (random01.next().value < 0.4) record.rel8ns[name] = pick([[], null, [address()], [address(), address()]]);
    }
    return record;
  });
}

// Proves: SY-1, SY-12, SY-14
test('records made here: the node hashes, names and accepts them alike', { skip }, () => {
  const cases: { case_: Vectors; expected: Vectors }[] = [];
  for (const written of [...binaries(), ...records(400 * SCALE)]) {
    const record: IbGib = extended(written);
    if (record.data === undefined) delete record.data;
    let gib: string;
    try {
      gib = gibOf(record);
    } catch {
      continue;
    }
    const { hash } = sha256v1(record);
    const full = { ...record, gib };
    let strict: string | null = null;
    try {
      readRecord(encodeRecord(full));
    } catch (error) {
      assert.ok(error instanceof Refused);
      strict = error.code;
    }
    cases.push({
      case_: { hashing: { ej: written }, check: { ibgib: JSON.stringify({ ...written, gib }) } },
      expected: { hash, sid: sid(full), strict, addr: `${record.ib}^${gib}`, order: (timeline: boolean) => String(orderKey(`${record.ib}^${gib}`, timeline)) },
    });
  }
  const lines = (name: 'hashing' | 'check'): string => cases.map(({ case_ }) => `${JSON.stringify(case_[name])}\n`).join('');
  const answers = (op: string, input: string): Vectors[] => sealtide(['ibgib', op], input).document.trim().split('\n').map((line: string) => JSON.parse(line));
  const [hashed, checked] = [answers('hash', lines('hashing')), answers('check', lines('check'))];
  assert.deepEqual([hashed.length, checked.length], [cases.length, cases.length]);
  const words = new Map<string, number>();
  cases.forEach(({ case_, expected }, at) => {
    const what = case_.check.ibgib;
    assert.equal(hashed[at].hash, expected.hash, what);
    assert.equal(checked[at].addr, expected.addr, what);
    // A node gives no order to what has no address.
    if (checked[at].order !== undefined) assert.equal(checked[at].order, expected.order(checked[at].timeline), what);
    if (checked[at].sid !== undefined) assert.equal(checked[at].sid, expected.sid, what);
    assert.equal(checked[at].strict ?? null, expected.strict, what);
    const word = expected.strict ?? 'taken';
    words.set(word, (words.get(word) ?? 0) + 1);
  });
  assert.ok((words.get('taken') ?? 0) > 20, 'too few records were good ones');
  console.log(`records: ${[...words].map(([word, count]) => `${count} × ${word}`).join(', ')}`);
});
