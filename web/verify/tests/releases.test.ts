import assert from 'node:assert/strict';
import test from 'node:test';
import { blake3 } from '@noble/hashes/blake3.js';
import { concat, utf8, type Bytes } from '../src/encoding/bytes.js';
import { canonicalJson } from '../src/encoding/canonical.js';
import { hex } from '../src/encoding/hex.js';
import type { JsonObject } from '../src/encoding/json.js';
import { writeTime } from '../src/encoding/time.js';
import {
  encodeRecord, readBundleHead, readHead, readLedgerRecord, readManifest, readRecord, Refused, Seen, Trust, verifyBundle, verifyHead, verifyManifest,
  type SignedHead, type SignedManifest, type TrustedHead,
} from '../src/index.js';
import { FILES, NOW, Publisher, tarOf, zstdOf, type Shipped } from './support/publisher.js';

const DAY = 86_400_000;

async function refusal(done: Promise<unknown>): Promise<string> {
  try {
    await done;
  } catch (error) {
    if (error instanceof Refused) return error.code;
    throw error;
  }
  return 'taken';
}

function signed(publisher: Publisher, change: JsonObject, signer = 1): SignedManifest {
  return readBundleHead(publisher.bundle(publisher.manifest(FILES, change), new Uint8Array(0), signer, []))!.manifest;
}

// Proves: GW-72, GW-110
test('a bundle is taken from bytes, a Blob and a stream in small pieces, and its files come out', async () => {
  const publisher = new Publisher();
  publisher.record('init', 1, { v1: 'active' }, [1]);
  const bundle = publisher.bundle(publisher.manifest(), zstdOf(tarOf(FILES)));
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bundle.length; at += 777) yield bundle.subarray(at, at + 777);
  };
  for (const source of [bundle, bundle.slice().buffer, new Blob([bundle]), new Blob([bundle]).stream(), pieces()]) {
    const out = new Map<string, number[]>();
    const onFileBytes = ({ path }: { path: string }, bytes: Uint8Array): void => void out.set(path, [...(out.get(path) ?? []), ...bytes]);
    const { manifest, trust, freshness } = await verifyBundle(source, publisher.trust(), { wallMs: NOW, onFileBytes });
    assert.deepEqual([manifest.content.version, trust.epoch, freshness], ['1.0.0', 1, 'not checked']);
    for (const { path, bytes } of FILES) assert.deepEqual(out.get(path) ?? [], [...bytes], path);
  }
});

// Proves: GW-77
test('bad payloads are refused: sizes, hashes, tars, frames, bombs', async () => {
  const publisher = new Publisher();
  const check = (payload: Bytes, change: JsonObject = {}, files: readonly Shipped[] = FILES): Promise<string> => {
    const manifest = publisher.manifest(files, change, payload);
    return refusal(verifyBundle(publisher.bundle(manifest, payload), publisher.trust(), { wallMs: NOW }));
  };
  const good = tarOf(FILES);
  assert.equal(await check(zstdOf(good)), 'taken');
  const changed = (at: number): Bytes => Uint8Array.from(good, (byte, index) => (index === at ? byte ^ 1 : byte));
  const [first, second] = [FILES[0]!, FILES[1]!];
  const rows: [string, Bytes][] = [
    ['a file changed', zstdOf(changed(512))],
    ['padding changed', zstdOf(changed(600))],
    ['a header changed', zstdOf(changed(100))],
    ['an owner', zstdOf(changed(110))],
    ['no end', zstdOf(good.subarray(0, good.length - 1024))],
    ['half an end', zstdOf(good.subarray(0, good.length - 512))],
    ['more behind the end', zstdOf(concat(good, new Uint8Array(512)))],
    ['a file missing', zstdOf(tarOf(FILES.slice(1)))],
    ['a file more', zstdOf(tarOf([...FILES, { path: 'z', bytes: utf8('z') }]))],
    ['another order', zstdOf(tarOf([second, first, ...FILES.slice(2)]))],
    ['a file twice', zstdOf(tarOf([first, ...FILES]))],
    ['a way out', zstdOf(tarOf([{ ...first, path: '../a.txt' }, ...FILES.slice(1)]))],
    ['no frame', good],
    ['two frames', concat(zstdOf(good), zstdOf(new Uint8Array(0)))],
    ['something behind the frame', concat(zstdOf(good), Uint8Array.of(0))],
    ['a frame cut short', zstdOf(good).slice(0, -1)],
    ['nothing', new Uint8Array(0)],
    // A block of one repeated byte, 128 KiB from four bytes, again and again.
    ['a bomb', concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 0x58), ...Array.from({ length: 4096 }, () => Uint8Array.of(2, 0, 16, 0)))],
    // Windows of 256 MiB and 2 GiB, and those as large as their content of 256 MiB and 1 TiB.
    ['a large window', concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3), zstdOf(good).slice(6))],
    ['a large segment', concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x10), zstdOf(good).slice(6))],
    ['a window', concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3), zstdOf(good).slice(6))],
    ['a single segment', concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0), zstdOf(good).slice(6))],
    ['a dictionary', concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 1, 0x58, 7), zstdOf(good).slice(6))],
  ];
  for (const [what, payload] of rows) assert.equal(await check(payload), 'payload', what);
  const widest = concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3), zstdOf(good).slice(6));
  assert.equal(await check(widest), 'taken', 'a window of 128 MiB');
  assert.equal(await check(zstdOf(good), { hash: '00'.repeat(32) }), 'payload');
  assert.equal(await check(zstdOf(good), { size: 1 }), 'payload');
  const stream = (bytes: Uint8Array): ReadableStream<Uint8Array> => new Blob([bytes as Bytes]).stream();
  const whole = publisher.bundle(publisher.manifest(), zstdOf(good));
  for (const odd of [whole.slice(0, -1), concat(whole, Uint8Array.of(0))]) {
    assert.equal(await refusal(verifyBundle(stream(odd), publisher.trust(), { wallMs: NOW })), 'payload', 'a stream of another length');
  }
});

// Proves: GW-72, GW-77, GW-103
test('manifests are read strictly', async () => {
  const publisher = new Publisher();
  const payload = zstdOf(tarOf(FILES));
  const check = (manifest: JsonObject): Promise<string> =>
    refusal(verifyBundle(publisher.bundle(manifest, payload), publisher.trust(), { wallMs: NOW }));
  const good = publisher.manifest();
  assert.equal(await check(good), 'taken');
  const files = good['files'] as JsonObject[];
  const odd: JsonObject[] = [
    { manifestVersion: 2 }, { registry: 'none' }, { name: 'Kiosk' }, { name: '../kiosk' }, { version: '1.0' }, { version: '01.0.0' },
    { channel: '' }, { seq: 0 }, { seq: 1.5 }, { seq: 2 }, { prev: '00'.repeat(32) }, { prev: 'AB'.repeat(32), seq: 2 },
    { keyVersion: '1' }, { keyVersion: 'v01' }, { createdAt: 'today' }, { createdAt: '2026-02-30T00:00:00Z' }, { expiry: 7 },
    { hash: '00' }, { size: -1 }, { size: 2 ** 53 }, { unpackedSize: 1 }, { more: 1 }, { files: null },
    { files: [{ ...files[0]!, mode: '0777' }, ...files.slice(1)] }, { files: [{ ...files[0]!, more: 1 }, ...files.slice(1)] },
    { files: [...files].reverse() }, { files: [files[0]!, ...files] },
    ...['/a.txt', '../a', 'a//b', 'a/.', 'a\\b', 'a\u0000', 'a\u0085', '', 'a/', 'x'.repeat(256), `${'x/'.repeat(513)}x`].map((path) => ({
      files: [{ ...files[0]!, path }, ...files.slice(1)].sort((left, right) => (String(left['path']) < String(right['path']) ? -1 : 1)),
    })),
    { files: [files[0]!, { ...files[1]!, path: 'a.txt/b' }, ...files.slice(2)] },
  ];
  for (const change of odd) assert.equal(await check({ ...good, ...change }), 'not_a_bundle', JSON.stringify(change).slice(0, 200));
  for (const name of Object.keys(good)) {
    const { [name]: _, ...rest } = good;
    assert.equal(await check(rest), 'not_a_bundle', `without ${name}`);
  }
});

// Proves: GW-103, GW-105
test('a manifest counts for its registry, its key and its key version', async () => {
  const publisher = new Publisher([1, 2]);
  publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  const trust = Trust.parse(publisher.trust());
  await trust.follow(publisher.records.map((record) => readLedgerRecord(record, 'record')));
  const check = (change: JsonObject, signer = 1): Promise<string> =>
    refusal(verifyManifest(trust, signed(publisher, change, signer), [], NOW));
  assert.equal(await check({}), 'taken');
  assert.equal(await check({ registry: `releases^${'EF'.repeat(32)}` }), 'other_registry');
  assert.equal(await check({ keyVersion: 'v2' }), 'key_version');
  assert.equal(await check({ keyVersion: 'v2' }, 2), 'unknown_key');
  const other = signed(publisher, { version: '9.9.9' });
  const swapped = { ...signed(publisher, {}), signatures: other.signatures };
  assert.equal(await refusal(verifyManifest(trust, swapped, [], NOW)), 'bad_signature');
});

/** v1, then v2, back to v1, and again v2: records of epochs 1 to 4. */
function busy(): Publisher {
  const publisher = new Publisher([1, 2]);
  publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { notAfter: { v1: NOW + 30 * DAY } });
  publisher.record('rollback', 1, { v1: 'active', v2: 'verify-only' }, [2, 1], { notAfter: { v2: NOW + 30 * DAY } });
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { notAfter: { v1: NOW + 30 * DAY } });
  return publisher;
}

const read = (records: readonly JsonObject[]): ReturnType<typeof readLedgerRecord>[] =>
  records.map((record) => readLedgerRecord(record, 'record'));

// Proves: GW-106
test('a trust follows the ledger in order, and nothing else', async () => {
  const publisher = busy();
  const [one, two, three, four] = read(publisher.records) as [ReturnType<typeof readLedgerRecord>, ...ReturnType<typeof read>];
  const fresh = (): Trust => Trust.parse(publisher.trust());
  const follow = (records: ReturnType<typeof read>, trust = fresh()): Promise<string> => refusal(trust.follow(records));
  const whole = fresh();
  assert.equal(await whole.follow([one!, two!, three!, four!]), 4 - 1);
  assert.deepEqual([whole.epoch, whole.active.kids], [4, publisher.pairs.get(2)!.keys.map((key) => key.kid)]);
  assert.equal(await whole.follow([one!, two!, three!, four!]), 0, 'known ones change nothing');
  assert.equal(await follow([two!]), 'taken', 'the trust file stands for the first record');
  assert.equal(await follow([one!, three!]), 'trust', 'skipped');
  assert.equal(await follow([one!, three!, two!]), 'trust', 'reordered');
  assert.equal(await follow([one!, two!, four!]), 'trust', 'skipped later');
  // What was learned is written down and read again, and goes on from there.
  const half = fresh();
  await half.follow([one!, two!]);
  const kept = Trust.parse(half.toFile());
  assert.equal(kept.toFile(), half.toFile());
  assert.equal(await kept.follow([three!, four!]), 2);
  assert.equal(kept.toFile(), whole.toFile());
  // A trust that began later knows no earlier pair, and compares with nothing.
  const late = Trust.parse(publisher.trust(2, 4));
  assert.equal(await late.follow([one!, two!, three!, four!]), 0);
  assert.equal(await refusal(Trust.parse(publisher.trust(1, 4)).follow([four!])), 'trust', 'the epoch of the file with another pair');
});

// Proves: GW-106
test('a record by one pair alone, with a wrong predecessor, of another ledger or for a lost key is refused', async () => {
  const change = async (signers: number[], more: JsonObject = {}, action = 'rotate'): Promise<string> => {
    const publisher = new Publisher([1, 2]);
    publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
    publisher.record(action, 2, { v1: 'verify-only', v2: 'active' }, signers, more);
    return refusal(Trust.parse(publisher.trust()).follow(read(publisher.records)));
  };
  assert.equal(await change([1, 2]), 'taken');
  assert.equal(await change([1]), 'trust');
  assert.equal(await change([2]), 'trust');
  assert.equal(await change([]), 'trust');
  assert.equal(await change([1, 2], { prev: '00'.repeat(32) }), 'trust');
  assert.equal(await change([1, 2], {}, 'recover'), 'trust');
  assert.equal(await change([1, 2], { keys: [] }), 'trust');
  const publisher = busy();
  const [one, two] = read(publisher.records);
  for (const at of [0, 1, 2, 3]) {
    const { signatures, ...rest } = publisher.records[1]!;
    const odd = { ...rest, signatures: (signatures as JsonObject[]).filter((_, index) => index !== at) };
    assert.equal(await refusal(Trust.parse(publisher.trust()).follow([one!, readLedgerRecord(odd, 'record')])), 'trust', `signature ${at}`);
  }
  const other = { ...publisher.records[2]!, ledger: 'keyring^OTHER' };
  assert.equal(await refusal(Trust.parse(publisher.trust()).follow([one!, two!, readLedgerRecord(other, 'record')])), 'trust');
});

// Proves: GW-106
test('a fork stops everything, and is remembered', async () => {
  const publisher = busy();
  const twin = new Publisher([1, 2]);
  twin.records.push(publisher.records[0]!);
  twin.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { reason: 'another history' });
  const unsigned = new Publisher([1, 2]);
  unsigned.records.push(publisher.records[0]!);
  unsigned.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [], { reason: 'anybody' });
  const records = read(publisher.records);
  const trust = Trust.parse(publisher.trust());
  await trust.follow(records.slice(0, 2));
  assert.equal(await refusal(trust.follow(read(unsigned.records))), 'trust');
  assert.equal(JSON.stringify(trust.fork), 'null', 'anybody can write an unsigned record');
  assert.equal(await refusal(trust.follow(read(twin.records))), 'trust');
  assert.equal(trust.fork?.epoch, 2);
  const kept = Trust.parse(trust.toFile());
  assert.deepEqual(kept.fork, trust.fork);
  assert.equal(await refusal(kept.follow(records)), 'trust');
  assert.equal(kept.epoch, 2);
});

test('trust files are read strictly', () => {
  const publisher = new Publisher();
  const good = JSON.parse(publisher.trust()) as JsonObject;
  const keys = good['keys'] as JsonObject[];
  const code = (text: string): string => {
    try {
      Trust.parse(text);
    } catch (error) {
      return (error as Refused).code;
    }
    return 'taken';
  };
  assert.equal(code(JSON.stringify({ ...good, root: `keystone^${'AA'.repeat(32)}` })), 'taken');
  const odd: JsonObject[] = [
    { schema: 'sealtide/trust/2' }, { registry: 7 }, { epoch: 0 }, { epoch: '1' }, { keys: [] }, { keys: [keys[0]!] },
    { keys: [keys[1]!, keys[0]!] }, { keys: [...keys, keys[0]!] }, { keys: [{ ...keys[0]!, kid: keys[1]!['kid']! }, keys[1]!] },
    { keys: [keys[0]!, { ...keys[1]!, alg: 'HMAC-SHA256' }] }, { root: 'x' }, { more: 1 }, { learned: {} }, { learned: null },
  ];
  for (const change of odd) assert.equal(code(JSON.stringify({ ...good, ...change })), 'trust_file', JSON.stringify(change).slice(0, 80));
  for (const text of ['', '[]', '{', JSON.stringify(good).replace('"epoch":1', '"epoch":1,"epoch":1')]) assert.equal(code(text), 'trust_file');
});

// Proves: GW-107
test('backdated: of a version that was given up only the last good manifest and those before it count', async () => {
  const publisher = new Publisher([1, 2]);
  publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2]);
  const first = signed(publisher, {});
  const second = signed(publisher, { seq: 2, prev: first.sha256, version: '1.1.0' });
  const third = signed(publisher, { seq: 3, prev: second.sha256, version: '1.2.0' });
  const channels = [{ registry: first.content.registry, channel: 'stable', seq: 2, manifestSha256: second.sha256 }];
  publisher.record('retire', 2, { v1: 'compromised', v2: 'active' }, [2], { compromised: [{ version: 'v1', channels }] });
  const trust = Trust.parse(publisher.trust());
  await trust.follow(read(publisher.records));
  const check = (manifest: SignedManifest, earlier: SignedManifest[] = []): Promise<string> =>
    refusal(verifyManifest(trust, manifest, earlier, NOW));
  assert.equal(await check(second), 'taken');
  assert.equal(await check(first, [second]), 'taken');
  assert.equal(await check(first), 'key_compromised', 'the manifest between is missing');
  assert.equal(await check(third, [second, first]), 'key_compromised');
  const backdated = signed(publisher, { version: '0.9.0', createdAt: '2020-01-01T00:00:00Z', signedAt: '2020-01-01T00:00:00Z' });
  assert.equal(await check(backdated, [first, second]), 'key_compromised');
  const elsewhere = signed(publisher, { channel: 'beta' });
  assert.equal(await check(elsewhere, [first, second]), 'key_compromised');
  assert.equal(await refusal(verifyHead(trust, readHead(publisher.head({}, 1)), NOW)), 'head_retired');
});

test('a pair ends with its date', async () => {
  const publisher = busy();
  const trust = Trust.parse(publisher.trust());
  await trust.follow(read(publisher.records.slice(0, 2)));
  const check = (wallMs: number): Promise<string> => refusal(verifyManifest(trust, signed(publisher, {}), [], wallMs));
  assert.deepEqual([await check(NOW + 30 * DAY - 1), await check(NOW + 30 * DAY)], ['taken', 'key_expired']);
  const unreadable = new Publisher([1, 2]);
  unreadable.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  unreadable.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { notAfter: { v1: 'some day' } });
  const strict = Trust.parse(unreadable.trust());
  await strict.follow(read(unreadable.records));
  assert.equal(await refusal(verifyManifest(strict, signed(unreadable, {}), [], NOW)), 'key_expired');
});

// Proves: GW-72
test('a record of a chain has one spelling', async () => {
  const publisher = new Publisher();
  const record = publisher.record('init', 1, { v1: 'active' }, [1]);
  const bundle = publisher.bundle(publisher.manifest(FILES), new Uint8Array(0));
  const canonical = canonicalJson(record)!;
  const turned = JSON.stringify(Object.fromEntries(Object.entries(record).sort().reverse()));
  const odd = Buffer.from(Buffer.from(bundle).toString('latin1').replace(canonical, turned), 'latin1');
  assert.deepEqual([odd.length, odd.equals(bundle)], [bundle.length, false]);
  assert.equal(readBundleHead(bundle)!.chain.length, 1);
  assert.equal(await refusal((async () => readBundleHead(new Uint8Array(odd)))()), 'not_a_bundle');
});

// Proves: GW-104
test('heads: freeze, rollback, channel swap, equivocation, a retired pair, yanked', async () => {
  const publisher = new Publisher([1, 2]);
  publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  const trust = Trust.parse(publisher.trust());
  await trust.follow(read(publisher.records));
  const first = signed(publisher, {});
  const second = signed(publisher, { seq: 2, prev: first.sha256, version: '1.1.0' });
  const other = signed(publisher, { seq: 2, prev: first.sha256, version: '1.1.1' });
  const head = (manifest: SignedManifest, change: JsonObject = {}): SignedHead =>
    readHead(publisher.head({ seq: manifest.content.seq, manifestSha256: manifest.sha256, ...change }));
  const counting = (it: SignedHead, wallMs = NOW): Promise<TrustedHead> => verifyHead(trust, it, wallMs);
  const verified = (it: SignedHead, wallMs = NOW): Promise<string> => refusal(counting(it, wallMs));
  assert.equal(await verified(head(first)), 'taken');
  assert.equal(await verified(head(first), NOW + 7 * DAY), 'head_expired');
  assert.equal(await verified(head(first, { epoch: 2 })), 'head_ahead');
  const { issuedAt } = head(first).content;
  assert.deepEqual([await verified(head(first), issuedAt - DAY), await verified(head(first), issuedAt - DAY - 1)], ['taken', 'head_early']);
  assert.equal(await verified(head(first, { registry: 'releases^x' })), 'other_registry');
  assert.equal(await verified(readHead(publisher.head({}, 2))), 'unknown_key');
  const seen = new Seen();
  seen.see(await counting(head(second)), NOW);
  seen.see(await counting(head(first)), NOW);
  assert.equal(seen.newest('stable')?.seq, 2);
  const admit = async (it: SignedManifest, of: SignedHead, more: object = {}, wallMs = NOW, by = seen): Promise<string> => {
    const [newest, release] = [await counting(of), await verifyManifest(trust, it, [], NOW)];
    return refusal((async () => by.admit(newest, release, { name: 'kiosk', channel: 'stable', ...more }, wallMs))());
  };
  assert.equal(await admit(second, head(second)), 'taken');
  assert.equal(await admit(first, head(first)), 'rollback');
  assert.equal(await admit(other, head(other)), 'equivocation');
  assert.equal(await admit(first, head(second)), 'not_of_head');
  assert.equal(await admit(first, head(second), { allowDowngrade: true }), 'taken');
  assert.equal(await admit(second, head(second), { channel: 'beta' }), 'other_channel');
  assert.equal(await admit(second, head(second, { channel: 'beta' })), 'other_channel');
  assert.equal(await admit(second, head(second), { name: 'other' }), 'other_app');
  assert.equal(await admit(second, head(second, { yanked: [2] })), 'yanked');
  assert.equal(await admit(second, head(second, { yanked: [2] }), { allowDowngrade: true }), 'taken');
  // A head of before a yank, in date still, does not undo it; and what was remembered before there were times counts as ever.
  const earlier = head(second, { issuedAt: writeTime(NOW - 1) });
  assert.equal(await admit(second, earlier), 'rollback');
  const kept = JSON.parse(seen.toFile()) as { channels: { stable: JsonObject } };
  const admitted = (it: Seen): Promise<string> => admit(second, earlier, {}, NOW, it);
  assert.equal(await admitted(Seen.parse(JSON.stringify(kept))), 'rollback');
  delete kept.channels.stable['issuedAt'];
  const older = Seen.parse(JSON.stringify(kept));
  assert.equal(await admitted(older), 'taken');
  older.see(await counting(head(second)), NOW);
  assert.equal(await admitted(older), 'rollback');
  // What was seen while the clock was ahead binds nobody, but for its number and manifest; a head of today takes its place.
  const ahead = new Seen();
  const later = head(second, { issuedAt: writeTime(NOW + 80 * DAY), notAfter: writeTime(NOW + 87 * DAY) });
  ahead.see(await counting(later, NOW + 80 * DAY), NOW + 80 * DAY);
  const newest = async (it: Seen, of: SignedHead, wallMs = NOW): Promise<string> => {
    const shown = await counting(of);
    return refusal((async () => it.isNewest(shown, wallMs))());
  };
  assert.deepEqual([await newest(ahead, head(second)), await newest(ahead, head(other))], ['taken', 'equivocation']);
  assert.deepEqual([await newest(ahead, head(second), NOW + 79 * DAY - 1), await newest(ahead, head(second), NOW + 79 * DAY)], ['taken', 'rollback']);
  const after = Seen.parse(ahead.toFile());
  after.see(await counting(head(second)), NOW);
  assert.equal(await newest(after, earlier), 'rollback');
  const settled = after.toFile();
  after.merge(ahead, NOW);
  assert.equal(after.toFile(), settled, 'what was seen elsewhere does not bring it back');
  const minima = ['1.1.0', '1.1.0+b', '1.0.9', '1.1.0-a', '1.1.1-a', '1.10.0', '2.0.0'];
  const verdicts = await Promise.all(minima.map((minimumVersion) => {
    const it = signed(publisher, { seq: 3, prev: second.sha256, version: '1.1.0', minimumVersion });
    return admit(it, head(it));
  }));
  assert.deepEqual(verdicts, ['taken', 'taken', 'taken', 'taken', 'yanked', 'yanked', 'yanked']);
  const early = signed(publisher, { seq: 3, prev: second.sha256, version: '1.1.0-rc.2', minimumVersion: '1.1.0-rc.10' });
  assert.deepEqual([await admit(early, head(early)), await admit(early, head(early), { allowDowngrade: true })], ['yanked', 'taken']);
  const ending = signed(publisher, { seq: 3, prev: second.sha256, expiry: '2026-11-29T00:00:00Z' });
  assert.deepEqual([await admit(ending, head(ending)), await admit(ending, head(ending), {}, NOW + DAY)], ['taken', 'expired']);
  const odd: JsonObject[] = [
    { schema: 'x' }, { seq: 0 }, { yanked: [2, 1] }, { yanked: [0] }, { more: 1 }, { notAfter: '2027-11-28T12:00:00Z' }, { notAfter: '2020-01-01T00:00:00Z' },
  ];
  for (const change of odd) assert.equal(await refusal((async () => readHead(publisher.head(change)))()), 'not_a_head', JSON.stringify(change));
});

test('what was read is not the memory it came from', async () => {
  const publisher = new Publisher();
  publisher.record('init', 1, { v1: 'active' }, [1]);
  const trust = Trust.parse(publisher.trust());
  // A Buffer of Node, of which `slice` is no copy, and which its owner fills again.
  const bufferOf = (bytes: Uint8Array): Uint8Array => Buffer.from(bytes) as unknown as Uint8Array;
  const buffer = bufferOf(publisher.bundle(publisher.manifest(), zstdOf(tarOf(FILES))));
  const { manifest, chain } = readBundleHead(buffer)!;
  const bytes = bufferOf(manifest.bytes);
  const alone = readManifest(bytes, manifest.signatures);
  const record = bufferOf(encodeRecord({ ib: 'note', data: { a: 1 } }));
  const { encoded } = readRecord(record);
  for (const memory of [buffer, bytes, record]) memory.fill(0);
  await trust.follow(chain);
  for (const it of [manifest, alone]) assert.equal((await verifyManifest(trust, it, [], NOW)).content.version, '1.0.0');
  assert.equal(readRecord(encoded).record.ib, 'note');
});

// Proves: GW-104
test('what was only read is neither remembered nor admitted', async () => {
  const publisher = new Publisher();
  const trust = Trust.parse(publisher.trust());
  const manifest = signed(publisher, {});
  const head = readHead(publisher.head({ manifestSha256: manifest.sha256 }));
  // A head that somebody wrote who has no key.
  const forged = { ...head, content: { ...head.content, seq: 9 }, signatures: readHead(publisher.head({ seq: 2 })).signatures };
  const [seen, wanted] = [new Seen(), { name: 'kiosk', channel: 'stable' }];
  const [newest, release] = [await verifyHead(trust, head, NOW), await verifyManifest(trust, manifest, [], NOW)];
  // Types say no, and for who has none the code does: what was read, what is being verified, a copy of what was.
  const verifying = verifyHead(trust, forged, NOW);
  const outcome = assert.rejects(verifying, { code: 'bad_signature' });
  for (const odd of [forged, head, verifying, { ...newest }, undefined] as unknown as TrustedHead[]) {
    for (const call of [() => seen.see(odd, NOW), () => seen.isNewest(odd, NOW), () => seen.admit(odd, release, wanted, NOW)]) {
      assert.throws(call, { name: 'TypeError', message: /verifyHead/ });
    }
  }
  await outcome;
  assert.throws(() => seen.see(forged as unknown as TrustedHead, NOW), TypeError);
  // @ts-expect-error
  assert.throws(() => seen.see(head, NOW), TypeError);
  // @ts-expect-error
  assert.throws(() => seen.admit(newest, manifest, wanted, NOW), { name: 'TypeError', message: /verifyManifest/ });
  assert.throws(() => Object.assign(newest, { content: forged.content }), TypeError);
  assert.equal(seen.newest('stable'), undefined);
  seen.admit(newest, release, wanted, NOW);
  seen.see(newest, NOW);
  assert.equal(seen.newest('stable')?.seq, 1);
});

test('a large bundle is not held in memory', async () => {
  const publisher = new Publisher();
  const scale = Number(process.env['SEALTIDE_TEST_SCALE'] ?? '1');
  const size = 48 * 1024 * 1024 * scale;
  // Made as it is read: a header, blocks of one repeated byte, an end.
  const files = [{ path: 'big.bin', bytes: new Uint8Array(0) }];
  const block = 131_072;
  const hash = blake3.create();
  for (let at = 0; at < size; at += block) hash.update(new Uint8Array(block).fill(7));
  const raw = (bytes: Uint8Array, last: number): Bytes =>
    concat(Uint8Array.of(((bytes.length << 3) | last) & 255, (bytes.length >> 5) & 255, bytes.length >> 13), bytes);
  const { tarHeader, TAR_END } = await import('../src/release/tar.js');
  const repeated = Uint8Array.of(((block << 3) | 2) & 255, (block >> 5) & 255, block >> 13, 7);
  const begin = concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 0x58), raw(tarHeader({ path: 'big.bin', size, executable: false }), 0));
  const payload = concat(begin, ...Array.from({ length: size / block }, () => repeated), raw(TAR_END, 1));
  const listed = [{ path: 'big.bin', hash: hex(hash.digest()), size, mode: '0644' }];
  const manifest = publisher.manifest(files, { files: listed, unpackedSize: size }, payload);
  const bundle = publisher.bundle(manifest, payload);
  let most = 0;
  const before = process.memoryUsage().arrayBuffers;
  const onFileBytes = (): void => void (most = Math.max(most, process.memoryUsage().arrayBuffers - before));
  await verifyBundle(new Blob([bundle]).stream(), publisher.trust(), { wallMs: NOW, onFileBytes });
  console.log(`large: ${size} bytes unpacked, at most ${most} bytes of buffers`);
  assert.ok(most < size, 'the whole of it was held');
});
