import assert from 'node:assert/strict';
import test from 'node:test';
import { Follower, type Release } from '../examples/follow.js';
import { concat, utf8, type Bytes } from '../src/encoding/bytes.js';
import type { JsonObject } from '../src/encoding/json.js';
import { readBundleHead, readLedgerRecord, Refused, Seen, Trust } from '../src/index.js';
import { Publisher, tarOf, zstdOf } from './support/publisher.js';
import { serve } from './support/serve.js';
import { withVectors } from './support/vectors.js';

const DAY = 86_400_000;
const soon = (ms: number): string => new Date(Date.now() + ms).toISOString();

/** What a browser keeps for a site. */
function storage(): Storage {
  const kept = new Map<string, string>();
  return { getItem: (name: string) => kept.get(name) ?? null, setItem: (name: string, text: string) => void kept.set(name, text) } as unknown as Storage;
}

/** A gateway with what a publisher put there. */
class Shelf {
  readonly files: Record<string, Uint8Array | string> = {};
  readonly publisher: Publisher;
  base = '';
  readonly #prev = new Map<string, string>();

  constructor(publisher: Publisher) {
    this.publisher = publisher;
  }

  /** Signs the head of `channel` anew, with a change. */
  sign(change: JsonObject, { channel = 'stable', signer = 1 } = {}): void {
    const { signatures: _, ...before } = JSON.parse(this.files[`/bundle/kiosk/head/${channel}`] as string) as JsonObject;
    this.files[`/bundle/kiosk/head/${channel}`] = JSON.stringify(this.publisher.head({ ...before, issuedAt: soon(0), ...change }, signer));
  }

  /** Publishes a version in `channel` as its release `seq`, and signs the head by `signer`. */
  publish(version: string, seq: number, { channel = 'stable', name = version, signer = 1, head = {} as JsonObject } = {}): Bytes {
    const shipped = [{ path: 'version', bytes: utf8(version) }];
    const payload = zstdOf(tarOf(shipped));
    const change = { version, channel, seq, prev: seq === 1 ? null : this.#prev.get(channel)!, keyVersion: `v${signer}`, createdAt: soon(0), signedAt: soon(0) };
    const bundle = this.publisher.bundle(this.publisher.manifest(shipped, change, payload), payload, signer);
    const { sha256 } = readBundleHead(bundle)!.manifest;
    this.#prev.set(channel, sha256);
    this.files[`/bundle/kiosk/${name}`] = bundle;
    const told = { channel, version, seq, manifestSha256: sha256, epoch: this.publisher.records.length, issuedAt: soon(0), notAfter: soon(DAY), ...head };
    this.files[`/bundle/kiosk/head/${channel}`] = JSON.stringify(this.publisher.head(told, signer));
    return bundle;
  }
}

async function shelf(body: (shelf: Shelf) => Promise<void>): Promise<void> {
  const publisher = new Publisher([1, 2]);
  publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  const made = new Shelf(publisher);
  const { base, close } = await serve(made.files);
  made.base = base;
  try {
    await body(made);
  } finally {
    close();
  }
}

async function code(done: Promise<unknown>): Promise<string> {
  return done.then(() => 'taken', (error) => (error instanceof Refused ? error.code : String(error)));
}

// Proves: GW-104, GW-106
test('the follower of the example: releases, keys that change, what is kept, what is refused', () => shelf(async (shelf) => {
  const { publisher, base } = shelf;
  const [site, trust] = [storage(), publisher.trust()];
  const open = (): Follower => new Follower('kiosk', 'stable', trust, site);
  let page = open();
  const text = async (): Promise<string | undefined> => (await page.look(base))?.files.get('version')?.text();
  const first = shelf.publish('1.0.0', 1);
  assert.deepEqual([await text(), await text()], ['1.0.0', undefined], 'once');
  const oldHead = shelf.files['/bundle/kiosk/head/stable']!;
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { notAfter: { v1: Date.now() + DAY } });
  const second = shelf.publish('1.1.0', 2, { signer: 2 });
  const odd = second.slice();
  odd[odd.length - 20]! ^= 1;
  shelf.files['/bundle/kiosk/1.1.0'] = odd;
  assert.equal(await code(page.look(base)), 'payload');
  shelf.files['/bundle/kiosk/1.1.0'] = first;
  assert.equal(await code(page.look(base)), 'not_of_head', 'another release under its name');
  shelf.files['/bundle/kiosk/1.1.0'] = second;
  assert.equal(await text(), '1.1.0');
  const newHead = shelf.files['/bundle/kiosk/head/stable']!;
  shelf.files['/bundle/kiosk/head/stable'] = oldHead;
  page = open();
  assert.equal(await code(page.look(base)), 'head_retired', 'a head of the pair before, after the page was loaded again');
  // Keys change, and nothing is published: the head is signed anew, and the records come from the ledger.
  publisher.record('rollback', 1, { v1: 'active', v2: 'verify-only' }, [2, 1], { notAfter: { v2: Date.now() + DAY } });
  const again = { ...(JSON.parse(newHead as string) as JsonObject), epoch: 3 };
  const { signatures: _, ...unsigned } = again as JsonObject;
  shelf.files['/bundle/kiosk/head/stable'] = JSON.stringify(publisher.head(unsigned, 1));
  assert.match(await code(page.look(base)), /version\/keys\/ledger\?since=2: 404/);
  shelf.files['/version/keys/ledger?since=2'] = JSON.stringify(publisher.records.slice(2));
  assert.equal(await text(), '1.1.0', 'handed out again to a page that was loaded again');
  shelf.publish('1.2.0', 3, { head: { notAfter: soon(-1), issuedAt: soon(-DAY) } });
  assert.equal(await code(page.look(base)), 'head_expired');
  shelf.publish('1.2.0', 3, { head: { yanked: [3] } });
  assert.equal(await code(page.look(base)), 'yanked');
  // Out in two channels: here it stands under the name of the channel.
  shelf.publish('2.0.0', 1, { channel: 'beta' });
  shelf.publish('2.0.0', 4, { name: '2.0.0~stable' });
  assert.equal(await text(), '2.0.0');
  shelf.files['/bundle/kiosk/head/stable'] = `"${'a'.repeat(9 * 1024 * 1024)}"`;
  assert.equal(await code(page.look(base)), 'not_a_head');
}));

// Proves: GW-106
test('a fork is kept, also by a page whose bundle was refused for it', () => shelf(async (shelf) => {
  const { publisher, base } = shelf;
  const site = storage();
  const open = (): Follower => new Follower('kiosk', 'stable', publisher.trust(), site);
  const [begin] = publisher.records;
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { notAfter: { v1: Date.now() + DAY } });
  shelf.publish('1.0.0', 1, { signer: 2 });
  await open().look(base);
  const good = publisher.records.splice(0, 2, begin!);
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { reason: 'another history' });
  shelf.publish('1.1.0', 2, { signer: 2 });
  assert.equal(await code(open().look(base)), 'trust');
  publisher.records.splice(0, 2, ...good);
  publisher.record('rollback', 1, { v1: 'active', v2: 'verify-only' }, [2, 1]);
  shelf.publish('1.2.0', 3);
  assert.equal(await code(open().look(base)), 'trust', 'nothing newer is taken until a new trust file comes');
  const kept = (): Trust => Trust.parse((JSON.parse(site.getItem('sealtide/kiosk/stable')!) as { trust: string }).trust);
  assert.equal(kept().fork?.epoch, 2);
  const anew = new Follower('kiosk', 'stable', publisher.trust(1, 3), site);
  assert.equal((await anew.look(base))?.version, '1.2.0', 'a new trust file came');
  assert.deepEqual([(await open().look(base))?.version, kept().fork], ['1.2.0', null], 'it stays, also for a page with the file of the first day');
}));

// Proves: GW-104, GW-106
test('a trust file that is given later', () => shelf(async (shelf) => {
  const { publisher, base } = shelf;
  const [site, place] = [storage(), 'sealtide/kiosk/stable'];
  const kept = (): { trust: Trust; seen: Seen } => {
    const { trust, seen } = JSON.parse(site.getItem(place)!) as Record<string, string>;
    return { trust: Trust.parse(trust!), seen: Seen.parse(seen!) };
  };
  const look = (trust: string): Promise<Release | null> => new Follower('kiosk', 'stable', trust, site).look(base);
  shelf.publish('1.0.0', 1);
  await look(publisher.trust());
  const root = `keystone^${'EF'.repeat(32)}`;
  const change = (change: object): string => JSON.stringify({ ...JSON.parse(publisher.trust()), ...change });
  await look(change({ root }));
  assert.equal(kept().trust.root, root, 'one that names the owner of the same pair');
  const [first, head] = [shelf.files['/bundle/kiosk/1.0.0']!, shelf.files['/bundle/kiosk/head/stable']!];
  shelf.publish('1.1.0', 2);
  await look(publisher.trust());
  // Keys changed, and the records between are not to be had: only the file tells.
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2]);
  publisher.record('rollback', 1, { v1: 'active', v2: 'verify-only' }, [2, 1]);
  publisher.records.splice(0, 2);
  shelf.publish('1.2.0', 3, { head: { epoch: 3 } });
  assert.equal(await code(look(publisher.trust())), 'trust');
  assert.equal((await look(publisher.trust(1, 3)))?.version, '1.2.0', 'one of a later epoch');
  Object.assign(shelf.files, { '/bundle/kiosk/1.0.0': first, '/bundle/kiosk/head/stable': head });
  assert.equal(await code(look(publisher.trust(1, 4))), 'rollback', 'what was seen stays');
  assert.equal(await code(look(change({ epoch: 5, registry: `releases^${'01'.repeat(32)}` }))), 'other_registry');
  assert.deepEqual([kept().trust.registry, kept().seen.newest('stable')], [`releases^${'01'.repeat(32)}`, undefined], 'another registry');
  site.setItem(place, '{"trust":"half of i');
  assert.equal((await look(publisher.trust()))?.version, '1.0.0', 'nothing that is kept can be read');
  assert.throws(() => new Follower('kiosk', 'stable', '{', site), { code: 'trust_file' });
}));

// Proves: GW-104
test('a release that is here: taken back, and its head gone stale', () => shelf(async (shelf) => {
  const { files, base, publisher } = shelf;
  const site = storage();
  const open = (): Follower => new Follower('kiosk', 'stable', publisher.trust(), site);
  const page = open();
  const [bundle, head] = [shelf.publish('1.0.0', 1), files['/bundle/kiosk/head/stable']!];
  assert.equal((await page.look(base))?.version, '1.0.0');
  delete files['/bundle/kiosk/1.0.0'];
  assert.equal(await page.look(base), null, 'it is not fetched again');
  shelf.sign({ issuedAt: soon(-DAY), notAfter: soon(-1) });
  assert.equal(await code(page.look(base)), 'head_expired');
  shelf.sign({ yanked: [1], issuedAt: soon(1), notAfter: soon(DAY) });
  assert.equal(await code(page.look(base)), 'yanked');
  Object.assign(files, { '/bundle/kiosk/1.0.0': bundle, '/bundle/kiosk/head/stable': head });
  assert.equal(await code(page.look(base)), 'rollback', 'the head that was signed before');
  assert.equal(await code(open().look(base)), 'rollback', 'and after the page was loaded again');
}));

// Proves: GW-104, GW-106
test('two pages of one site, and two looks of one page', () => shelf(async (shelf) => {
  const { files, base, publisher } = shelf;
  const site = storage();
  const open = (): Follower => new Follower('kiosk', 'stable', publisher.trust(), site);
  const [one, other] = [open(), open()];
  const [first, head] = [shelf.publish('1.0.0', 1), files['/bundle/kiosk/head/stable']!];
  const both = await Promise.all([one.look(base), one.look(base)]);
  assert.deepEqual(both.map((release) => release?.version), ['1.0.0', undefined]);
  await other.look(base);
  publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2]);
  shelf.publish('1.1.0', 2, { signer: 2 });
  assert.equal((await other.look(base))?.version, '1.1.0');
  Object.assign(files, { '/bundle/kiosk/1.0.0': first, '/bundle/kiosk/head/stable': head });
  assert.equal(await code(one.look(base)), 'head_retired', 'what the other page learned of keys');
  shelf.sign({ epoch: 2 }, { signer: 2 });
  assert.equal(await code(one.look(base)), 'rollback', 'and of releases');
  const { trust, seen } = JSON.parse(site.getItem('sealtide/kiosk/stable')!) as Record<string, string>;
  assert.deepEqual([Trust.parse(trust!).epoch, Seen.parse(seen!).newest('stable')?.seq], [2, 2], 'nothing of it is lost');
}));

// Proves: GW-106
withVectors('sealtide-recovery-1', 'what a thief showed is forgotten when the key is replaced', async ({ trust, frames, bundles, heads, now_ms: now }) => {
  const bytes = (base64: string): Bytes => new Uint8Array(Buffer.from(base64, 'base64'));
  const bundle = (pieces: (string | number)[]): Bytes => concat(...pieces.map((it) => bytes(typeof it === 'number' ? frames[it] : it)));
  const head = '/bundle/kiosk/head/stable';
  const files = { '/bundle/kiosk/1.0.0': bundle(bundles.before), '/bundle/kiosk/1.1.0': bundle(bundles.after), [head]: JSON.stringify(heads.before) };
  const { base, close } = await serve(files);
  const clock = Date.now;
  Date.now = () => now;
  try {
    const [site, place] = [storage(), 'sealtide/kiosk/stable'];
    const page = new Follower('kiosk', 'stable', JSON.stringify(trust), site);
    assert.equal((await page.look(base))?.version, '1.0.0');
    const thief = { schema: 'sealtide/seen/1', channels: { stable: { seq: 9, sha256: 'ab'.repeat(32), issuedAt: now } } };
    site.setItem(place, JSON.stringify({ ...JSON.parse(site.getItem(place)!), seen: JSON.stringify(thief) }));
    assert.equal(await code(page.look(base)), 'rollback');
    files[head] = JSON.stringify(heads.after);
    assert.equal((await page.look(base))?.version, '1.1.0');
    // Another page follows the recovery between the look at a head of before and the moment when that is written down.
    const after = JSON.stringify({ ...JSON.parse(site.getItem(place)!), seen: new Seen().toFile() });
    files[head] = JSON.stringify(heads.before);
    const look = async (raced: number): Promise<{ told: string; asked: number; seen: number | undefined }> => {
      const elsewhere = storage();
      let asked = 0;
      const getItem = (name: string): string | null => (++asked === raced ? after : elsewhere.getItem(name));
      const told = await code(new Follower('kiosk', 'stable', JSON.stringify(trust), { ...elsewhere, getItem }).look(base));
      const { seen } = JSON.parse(elsewhere.getItem(place)!) as { seen: string };
      return { told, asked, seen: Seen.parse(seen).newest('stable')?.seq };
    };
    const { told, asked, seen } = await look(0);
    assert.deepEqual([told, seen], ['taken', 1]);
    assert.deepEqual(await look(asked), { told: 'head_retired', asked, seen: undefined }, 'nothing of it is remembered');
  } finally {
    Date.now = clock;
    close();
  }
});

// Proves: GW-106
test('what two trusts learned apart, together', async () => {
  const publisher = new Publisher([1, 2]);
  publisher.record('init', 1, { v1: 'active', v2: 'prepared' }, [1]);
  const follow = async (): Promise<Trust> => {
    const trust = Trust.parse(publisher.trust());
    await trust.follow(publisher.records.map((record) => readLedgerRecord(record, 'a record')));
    return trust;
  };
  const rotate = (reason: string): JsonObject => publisher.record('rotate', 2, { v1: 'verify-only', v2: 'active' }, [1, 2], { reason });
  const begin = await follow();
  rotate('');
  const good = await follow();
  assert.deepEqual([begin.together(good).epoch, good.together(begin).epoch, good.together(begin).fork], [2, 2, null]);
  publisher.records.pop();
  rotate('another history');
  const odd = await follow();
  for (const fork of [good.together(odd), odd.together(good)]) {
    assert.equal(fork.fork?.epoch, 2, 'each was shown another history');
    assert.deepEqual([fork.together(good).fork, good.together(fork).fork], [fork.fork, fork.fork], 'it stays');
  }
});

test('what was remembered of channels is read strictly', () => {
  const seen = new Seen();
  assert.equal(Seen.parse(seen.toFile()).toFile(), seen.toFile());
  const file = { schema: 'sealtide/seen/1', channels: { stable: { seq: 3, sha256: 'ab'.repeat(32) } } };
  assert.deepEqual(Seen.parse(JSON.stringify(file)).newest('stable'), file.channels.stable);
  const odd: unknown[] = [
    [], {}, { ...file, schema: 'x' }, { ...file, more: 1 }, { ...file, channels: [] }, { ...file, channels: { Stable: file.channels.stable } },
    { ...file, channels: { stable: { seq: 0, sha256: 'ab'.repeat(32) } } }, { ...file, channels: { stable: { seq: 1, sha256: 'AB' } } },
    { ...file, channels: { stable: { ...file.channels.stable, issuedAt: '2026-11-28' } } }, { ...file, channels: { stable: { seq: 1 } } }, { ...file, channels: { stable: null } },
  ];
  for (const it of odd) assert.throws(() => Seen.parse(JSON.stringify(it)), { code: 'seen_file' }, JSON.stringify(it));
  assert.throws(() => Seen.parse('{'), { code: 'seen_file' });
});
