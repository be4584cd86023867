import assert from 'node:assert/strict';
import test from 'node:test';
import { concat, utf8 } from '../src/encoding/bytes.js';
import { canonicalJson } from '../src/encoding/canonical.js';
import { cbor } from '../src/encoding/cbor.js';
import type { JsonObject } from '../src/encoding/json.js';
import { hmacKid, hmacSignature, readLegacyManifest, Refused, verifyBundle, verifyLegacyManifest } from '../src/index.js';
import { FILES, NOW, Publisher, tarOf, zstdOf } from './support/publisher.js';
import { withVectors, type Vectors } from './support/vectors.js';

const SECRET = '02740231681f187710c25120b53ab52ec2a77a5e2d581e96ecfbddbd51e6225f';

async function code(done: Promise<unknown>): Promise<string> {
  return done.then(() => 'taken', (error) => (error instanceof Refused ? error.code : String(error)));
}

// Proves: GW-73
withVectors('HMAC-SHA256', 'transaction manifests of the older system: both members removed', async ({ vectors }) => {
  const cases = vectors.filter(({ payload_utf8 }: Vectors) => payload_utf8.startsWith('{"transactionId"'));
  const own = '{"transactionId":"a","type":"patch","timestamp":1,"status":"prepared","affectedEntities":[],"backedUpFiles":[],"fileChanges":[]}';
  cases.push({ id: 'made here', key: { text: SECRET }, payload_utf8: own, hmac_sha256_hex: await hmacSignature(SECRET, utf8(own)) });
  for (const { id, key, payload_utf8, hmac_sha256_hex } of cases) {
    const manifest = JSON.parse(payload_utf8);
    // Written as the older system did, the signature at the end; and with spaces, since only the compact form is signed.
    const stored = { ...manifest, signature: hmac_sha256_hex, signedAt: 1_762_887_900_123 };
    for (const text of [JSON.stringify(stored), JSON.stringify(stored, null, 2)]) {
      const { state, content } = await verifyLegacyManifest(text, key.text);
      assert.deepEqual([state, content], ['verified', manifest], id);
      assert.deepEqual(readLegacyManifest(text), { state: 'signed, key not pinned', content: manifest }, id);
      // The empty secret is everybody's.
      const anybodys = text.replace(hmac_sha256_hex, await hmacSignature('', utf8(payload_utf8)));
      for (const none of [undefined, null, '', false, new Uint8Array(0)]) {
        assert.equal(await code(verifyLegacyManifest(anybodys, none as unknown as string)), 'unknown_key', id);
      }
    }
    const check = (change: object, secret: string = key.text): Promise<string> =>
      code(verifyLegacyManifest(JSON.stringify({ ...stored, ...change }), secret));
    assert.equal(await check({ signedAt: 'any time' }), 'taken', 'signedAt is not covered');
    assert.equal(await check({ status: 'committed' }), 'bad_signature');
    assert.equal(await check({}, SECRET.replace('0', '1')), 'bad_signature', 'another secret');
    assert.equal(await check({ signature: hmac_sha256_hex.toUpperCase() }), 'bad_signature');
    assert.equal(await check({ signature: 7 }), 'bad_signature');
    assert.equal(await check({ entityId: 'component:other' }), 'bad_signature', 'a member added or changed');
    assert.equal(await check({ more: 1 }), 'bad_answer');
    // As the older verifier did it: `signedAt` left in gives another HMAC, so it took nothing.
    const { signature: _, ...older } = stored;
    assert.notEqual(await hmacSignature(key.text, utf8(JSON.stringify(older))), hmac_sha256_hex, id);
    const { transactionId, ...rest } = stored;
    assert.equal(await code(verifyLegacyManifest(JSON.stringify({ ...rest, transactionId }), key.text)), 'bad_signature', 'another order');
    assert.equal(await code(verifyLegacyManifest(JSON.stringify(rest), key.text)), 'bad_answer');
    assert.equal(await code(verifyLegacyManifest(payload_utf8, key.text)), 'not_signed');
    const twice = JSON.stringify(stored).replace('{', '{"status":"committed",');
    assert.equal(await code(verifyLegacyManifest(twice, key.text)), 'bad_answer', 'a member twice');
  }
  console.log(`legacy manifests: ${cases.length}`);
});

// Proves: GW-73
test('a bundle manifest that HMAC signed is untrusted, and its bundle no bundle', async () => {
  const publisher = new Publisher();
  publisher.record('init', 1, { v1: 'active' }, [1]);
  const payload = zstdOf(tarOf(FILES));
  const manifest = publisher.manifest();
  const bytes = utf8(canonicalJson(manifest)!);
  const mac = await hmacSignature(SECRET, bytes);
  // Right by its HMAC in every spelling; that the secret is known changes nothing.
  const signed: JsonObject[] = [
    { ...manifest, signature: mac, signedAt: NOW },
    { ...manifest, signatures: [{ kid: hmacKid(SECRET, 1), alg: 'HMAC-SHA256', sig: mac }] },
  ];
  for (const odd of signed) assert.equal(await code(verifyLegacyManifest(JSON.stringify(odd), SECRET)), 'untrusted');
  const { manifestVersion: _, ...half } = manifest;
  assert.equal(await code(verifyLegacyManifest(JSON.stringify({ ...half, signature: mac }), SECRET)), 'untrusted');
  const good = publisher.bundle(manifest, payload);
  const options = { wallMs: NOW };
  assert.equal(await code(verifyBundle(good, publisher.trust(), options)), 'taken');
  const entry = [...cbor.array(3), ...cbor.text(hmacKid(SECRET, 1)), ...cbor.text('HMAC-SHA256'), ...cbor.bytes(utf8(mac))];
  const head = [...cbor.array(4), ...cbor.text('STB1'), ...cbor.bytes(bytes), ...cbor.array(2)];
  const odd = concat(...head, ...entry, ...entry, ...cbor.array(0), payload);
  assert.equal(await code(verifyBundle(odd, publisher.trust(), options)), 'not_a_bundle');
  // A trust names no HMAC key either, so nothing can be made to check it.
  const keys = [{ kid: hmacKid(SECRET, 1), alg: 'HMAC-SHA256', publicKey: 'AA==' }];
  const trust = JSON.stringify({ ...(JSON.parse(publisher.trust()) as object), keys: [keys[0], keys[0]] });
  assert.equal(await code(verifyBundle(odd, trust, options)), 'trust_file');
});
