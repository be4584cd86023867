import assert from 'node:assert/strict';
import test from 'node:test';
import { ed25519 } from '@noble/curves/ed25519.js';
import { sha256, sha512 } from '@noble/hashes/sha2.js';
import { ml_dsa87 } from '@noble/post-quantum/ml-dsa.js';
import { base64, fromBase64 } from '../src/encoding/base64.js';
import { concat, copied, utf8, type Bytes } from '../src/encoding/bytes.js';
import { hex } from '../src/encoding/hex.js';
import {
  GATEWAY_CONTEXTS, hmacKid, hmacSignature, kidOf, LABELS, pairSeeds, PublicPair, readBumpAnswer, readRegistry, signedMessage, verifyAlone,
  verifyBumpAnswer, verifyRegistry, type AnswerKeys, type Label, type Signature,
} from '../src/index.js';
import { verifyEd25519 } from '../src/signature/ed25519.js';
import { gatewayMessage } from '../src/signature/label.js';
import { verifyMlDsa87 } from '../src/signature/mldsa.js';
import { readSignature } from '../src/signature/pair.js';
import { memberText } from '../src/gateway/member-text.js';
import { verifyHmac } from '../src/gateway/secret.js';
import { withVectors } from './support/vectors.js';

const SECRET = '25fa979bd57e02bd21c0a2c5b630d663bf7e9e5602901957fc5ae77f2205f988';
const seeds = pairSeeds(SECRET, 2)!;
const edKey = ed25519.getPublicKey(seeds.ed25519) as Bytes;
const mlKeys = ml_dsa87.keygen(seeds.mlDsa);
const mlKey = mlKeys.publicKey as Bytes;

function unhex(digits: string): Bytes {
  return new Uint8Array(Buffer.from(digits, 'hex'));
}

// Proves: GW-44
test('the worked examples of the specification', async () => {
  assert.equal(hex(seeds.ed25519), '71e54c990b2194fc9f1a8aa3db0228b0c9c49a2e123ec82583ef0986937ad0ca');
  assert.equal(hex(edKey), '660462195784db60d1b2a35992b4047e9e1f32fbb9a25fd2b0b92d4a7f9ab43e');
  assert.equal(kidOf(edKey), '369a4c9cee054705');
  const signature = 'tZXmCqh7u2txOHDi2RZztup+Nz2xXMeJJ3OFmo+qIsJJSAQLNV+U33ex2Tpl5puuAez2q/NmCTQDc+LUVsc1Dw==';
  const shared = (bytes: Uint8Array): Uint8Array => {
    const view = new Uint8Array(new SharedArrayBuffer(bytes.length));
    view.set(bytes);
    return view;
  };
  // Whatever memory is behind the bytes.
  for (const by of [copied, (it: Uint8Array) => Buffer.from(it) as unknown as Uint8Array, shared]) {
    await verifyAlone('bump', by(utf8('[]')), signature, by(edKey));
    assert.equal(await hmacSignature(by(edKey), by(utf8('[]'))), await hmacSignature(edKey, utf8('[]')));
  }
  for (const context of ['registry', 'manifest'] as const) {
    await assert.rejects(verifyAlone(context, utf8('[]'), signature, edKey), { code: 'bad_signature' });
  }
  assert.equal(hex(seeds.mlDsa), 'f949d208e0f40c743b2c139d8d284eaa5e1d4054f53720ed2009a5b035e85469');
  assert.equal(hex(sha256(mlKey)), '1c069be31163e0e48e72686cfe3fbc7490abaebdf0e4d45bb38c6806ea29afec');
  const message = signedMessage('release1 manifest', utf8('{}'));
  assert.equal(message.length, 112);
  assert.equal(hex(sha256(message)), 'b7ec8f358eda9caa9a652b5202cf45e8dd93e7e590b434f391a155748196fdb8');
  assert.equal(pairSeeds(SECRET.toUpperCase(), 2), undefined);
  assert.equal(pairSeeds('passphrase', 2), undefined);
});

// Proves: LK-7, SY-86
test('a signature of each label fails under every other label, with a context, and for every other layout', async () => {
  const content = utf8('what is said');
  for (const label of LABELS) {
    const message = signedMessage(label, content);
    const [ml, ed] = [ml_dsa87.sign(message, mlKeys.secretKey), ed25519.sign(message, seeds.ed25519) as Bytes];
    for (const other of LABELS) {
      const wanted = signedMessage(other, content);
      assert.equal(verifyMlDsa87(mlKey, wanted, ml), other === label, `${label} as ${other}`);
      assert.equal(await verifyEd25519(edKey, wanted, ed), other === label, `${label} as ${other}`);
    }
    for (const odd of [content, sha512(content), concat(message, Uint8Array.of(0)), message.subarray(0, 111)]) {
      assert.equal(verifyMlDsa87(mlKey, odd, ml), false);
    }
    const inContext = ml_dsa87.sign(message, mlKeys.secretKey, { context: utf8('c') });
    assert.equal(verifyMlDsa87(mlKey, message, inContext), false, 'a context string');
  }
  assert.throws(() => signedMessage('release1 bundle' as Label, content), RangeError);
  assert.throws(() => gatewayMessage('head' as 'bump', content), RangeError);
  assert.equal(GATEWAY_CONTEXTS.length, 3);
});

withVectors('HMAC-SHA256', 'HMAC of the gateway', async ({ vectors }) => {
  for (const { id, key, payload_utf8, hmac_sha256_hex, must_not_equal } of vectors) {
    const secret = key.encoding === 'utf8-text' ? key.text : unhex(key.hex);
    const payload = utf8(payload_utf8);
    assert.equal(await hmacSignature(secret, payload), hmac_sha256_hex, id);
    assert.equal(await verifyHmac(secret, payload, hmac_sha256_hex), true, id);
    assert.equal(await verifyHmac(secret, payload, hmac_sha256_hex.toUpperCase()), false, `${id}: upper case`);
    for (const wrong of Object.values<string>(must_not_equal ?? {})) assert.equal(await verifyHmac(secret, payload, wrong), false, id);
  }
  console.log(`hmac: ${vectors.length} cases`);
});

// Proves: LK-7
withVectors('sealtide-link-handshake-1', 'both signatures of a link handshake', (file) => {
  const [hello, challenge, response] = ['hello', 'challenge', 'response'].map((name) =>
    file.frames.find((frame: { name: string }) => frame.name === name),
  );
  const found = (at: { frame: string; signature_at: number }): [Bytes, Bytes] => {
    const frame = unhex(at.frame);
    return [frame.slice(at.signature_at, at.signature_at + 4627), frame.slice(at.signature_at - 2 - 2592, at.signature_at - 2)];
  };
  for (const [frame, label] of [[challenge, 'link1 responder'], [response, 'link1 initiator']] as const) {
    const [signature, key] = found(frame);
    const told = unhex(frame.signed);
    assert.deepEqual(told.slice(0, 16), utf8('sealtide-sig-v1\0'));
    const start = unhex(frame.frame);
    const cut = start.slice(0, frame.signature_at - 2);
    const id = (side: 'initiator' | 'responder'): Bytes => unhex(file[side].node_id);
    const role = label === 'link1 responder' ? 2 : 1;
    const channel = [Uint8Array.of(1, file.kind, role, file.bind), unhex(file.cb), unhex(file.fp_client), unhex(file.fp_server)];
    const h = sha512;
    const content =
      role === 2
        ? concat(...channel, id('responder'), h(unhex(hello.frame)), h(cut))
        : concat(...channel, id('initiator'), id('responder'), h(unhex(hello.frame)), h(unhex(challenge.frame)), h(cut.slice(8)));
    const message = signedMessage(label, content);
    assert.deepEqual(message, told, label);
    assert.equal(verifyMlDsa87(key, message, signature), true, label);
    message[111]! ^= 1;
    assert.equal(verifyMlDsa87(key, message, signature), false, label);
  }
});

// Proves: LK-7
withVectors('sealtide-link-handshake-1', 'certificates of a link handshake', (file) => {
  const frame = (name: string): { frame: string; signature_at: number; signed: string } =>
    file.frames.find((it: { name: string }) => it.name === name);
  const keyOf = (name: string): Bytes => {
    const { frame: digits, signature_at } = frame(name);
    return unhex(digits).slice(signature_at - 2 - 2592, signature_at - 2);
  };
  const id = (side: 'initiator' | 'responder'): Bytes => unhex(file[side].node_id);
  const rows = [
    ['established_i', 'initiator', 'responder', keyOf('response')],
    ['established_r', 'responder', 'initiator', keyOf('challenge')],
  ] as const;
  for (const [name, signer, audience, key] of rows) {
    const { frame: digits, signature_at, signed } = frame(name);
    const payload = unhex(digits).slice(8);
    const content = concat(payload.slice(0, 17), id(signer), id(audience), payload.slice(42, 94), unhex(file.sb));
    const message = signedMessage('link1 tls-cert', content);
    assert.deepEqual(message, unhex(signed), name);
    const signature = payload.slice(signature_at - 8, signature_at - 8 + 4627);
    assert.equal(verifyMlDsa87(key, message, signature), true, name);
    assert.equal(verifyMlDsa87(key, signedMessage('link1 responder', content), signature), false, name);
  }
});

// Proves: GW-44
test('Ed25519 takes one encoding, and nothing of small order', async () => {
  const message = utf8('m');
  const signature = ed25519.sign(message, seeds.ed25519) as Bytes;
  assert.equal(await verifyEd25519(edKey, message, signature), true);
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  const scalar = BigInt(`0x${hex(signature.slice(32).reverse())}`) + order;
  const high = unhex(scalar.toString(16).padStart(64, '0')).reverse();
  assert.equal(await verifyEd25519(edKey, message, concat(signature.slice(0, 32), high)), false, 'S + L');
  const identity = new Uint8Array(32);
  identity[0] = 1;
  // With a key of order one, every signature of (identity, 0) would hold.
  assert.equal(await verifyEd25519(identity, message, concat(identity, new Uint8Array(32))), false);
  const notCanonical = new Uint8Array(32).fill(255);
  notCanonical[31] = 127;
  assert.equal(await verifyEd25519(notCanonical, message, signature), false);
  for (const odd of [signature.slice(1), concat(signature, Uint8Array.of(0)), new Uint8Array(64)]) {
    assert.equal(await verifyEd25519(edKey, message, odd), false);
  }
});

// Proves: GW-44
test('one spelling for each signature', () => {
  const sig = new Uint8Array(64).fill(7);
  const entry = (spelled: string): object | undefined => readSignature({ kid: '0123456789abcdef', alg: 'Ed25519', sig: spelled });
  const good = base64(sig);
  assert.ok(entry(good));
  const odd = [good.replace(/=+$/, ''), `${good}\n`, ` ${good}`, base64(sig.slice(1)), good.replace('w==', 'x=='), good.replaceAll('B', '-')];
  for (const spelled of odd) assert.equal(entry(spelled), undefined, spelled);
  assert.equal(fromBase64('AA='), undefined);
  assert.equal(readSignature({ kid: '0123456789abcdef', alg: 'HMAC-SHA256', sig: 'a'.repeat(64) }), undefined);
  assert.equal(readSignature({ kid: '0123456789abcdef', alg: 'Ed25519', sig: good, more: 1 }), undefined);
});

// Proves: GW-103
test('a pair needs both signatures: missing, doubled, swapped, of another pair or under another name refuse', async () => {
  const pair = PublicPair.of(mlKey, edKey)!;
  const content = utf8('{}');
  const message = signedMessage('release1 manifest', content);
  const ml: Signature = { kid: pair.kids[0], alg: 'ML-DSA-87', sig: ml_dsa87.sign(message, mlKeys.secretKey) as Bytes };
  const ed: Signature = { kid: pair.kids[1], alg: 'Ed25519', sig: ed25519.sign(message, seeds.ed25519) as Bytes };
  await pair.verify('release1 manifest', content, [ml, ed]);
  const wrong = ed25519.sign(message, new Uint8Array(32).fill(9)) as Bytes;
  const odd: [string, Signature[]][] = [
    ['none', []], ['one missing', [ml]], ['the other missing', [ed]], ['doubled', [ml, ml]], ['swapped', [ed, ml]],
    ['three', [ml, ed, ed]], ['of another key', [ml, { ...ed, sig: wrong }]], ['another name', [ml, { ...ed, kid: pair.kids[0] }]],
    ['another algorithm', [ml, { ...ed, alg: 'ML-DSA-87' }]], ['both fields of one', [{ ...ml, alg: 'Ed25519' }, ed]],
  ];
  for (const [what, list] of odd) await assert.rejects(pair.verify('release1 manifest', content, list), { code: 'bad_signature' }, what);
  await assert.rejects(pair.verify('release1 head', content, [ml, ed]), { code: 'bad_signature' });
});

// Proves: GW-43, GW-88
test('an answer is checked on its own bytes', async () => {
  // Members out of order, an escape that is not needed, a number as nobody writes it: still the bytes that were signed.
  const bumped = '[{"id":"global:main","currentVersion":"1.0.1","displayName":"a\\u0062","odd":[1.0,"],}"]}]';
  const signed = base64(ed25519.sign(gatewayMessage('bump', utf8(bumped)), seeds.ed25519));
  const body = (text: string, more = ''): string =>
    `{"success":true,"bumped":${text},"changes":[],"signature":"${signed}","keyVersion":"v2","alg":"Ed25519","kid":"${kidOf(edKey)}"${more}}`;
  assert.equal((await verifyBumpAnswer(body(bumped), { pinned: edKey })).state, 'verified');
  assert.equal((await verifyBumpAnswer(`{"type":"bump_response","data":${body(bumped)}}`, { pinned: edKey })).state, 'verified');
  const code = (text: string, keys: AnswerKeys = { pinned: edKey }): Promise<string> =>
    verifyBumpAnswer(text, keys).then(() => 'taken', (error) => error.code);
  assert.equal(await code(body(JSON.stringify(JSON.parse(bumped)))), 'bad_signature', 'written again');
  assert.equal(await code(body(bumped.replace('1.0.1', '1.0.2'))), 'bad_signature');
  assert.equal(await code(body(bumped, `,"bumped":${bumped}`)), 'bad_answer', 'two of them');
  const changed = body(bumped.replace('1.0.1', '1.0.2'));
  assert.equal(await code(changed.replace('Ed25519', 'HMAC-SHA256')), 'unknown_key', 'another algorithm turns no check off');
  assert.equal(await code(body(bumped).replace('Ed25519', 'none')), 'bad_answer');
  assert.equal(await code(body(bumped), { pinned: ed25519.getPublicKey(new Uint8Array(32).fill(5)) as Bytes }), 'unknown_key');
  assert.equal(await code('{"bumped":[]}'), 'not_signed');
  for (const odd of ['', 'null', '[]', '{}', '{"bumped":{}}', '{"type":"pong"}']) assert.equal(await code(odd), 'bad_answer', odd);
  const mac = await hmacSignature(SECRET, utf8(bumped));
  const byHmac = `{"bumped":${bumped},"signature":"${mac}","keyVersion":"v2","alg":"HMAC-SHA256","kid":"${hmacKid(SECRET, 2)}"}`;
  assert.equal((await verifyBumpAnswer(byHmac, { secret: SECRET })).state, 'verified');
  assert.equal(await code(byHmac, { secret: SECRET.toUpperCase() }), 'bad_signature');
  assert.equal(await code(byHmac), 'unknown_key');
  assert.equal(await code(changed, { secret: SECRET }), 'unknown_key', 'and not the other way round');
  assert.equal(await code(changed.replace('Ed25519', 'HMAC-SHA256'), { secret: SECRET }), 'bad_signature');
  const both = { pinned: edKey, secret: SECRET };
  assert.deepEqual([await code(byHmac, both), await code(body(bumped), both)], ['taken', 'taken']);
  // Who has no key reads, under another name, and is told so; plain JavaScript that forgets the key is told too.
  for (const text of [body(bumped), byHmac]) {
    assert.equal(readBumpAnswer(text).state, 'signed, key not pinned');
    for (const none of [undefined, {}, { pinned: undefined }]) {
      await assert.rejects(verifyBumpAnswer(text, none as unknown as AnswerKeys), { code: 'unknown_key' });
    }
  }
  // Storage and the environment give these where there is none. The empty secret is everybody's.
  const anybodys = byHmac.replace(mac, await hmacSignature('', utf8(bumped)));
  for (const none of [null, '', false, 0, [], new Uint8Array(0)]) {
    const keys = { pinned: edKey, secret: none } as unknown as AnswerKeys;
    assert.deepEqual([await code(anybodys, keys), await code(byHmac, keys)], ['unknown_key', 'unknown_key'], String(none));
  }
  for (const none of [null, undefined, false]) assert.throws(() => hmacKid(none as unknown as string, 1), TypeError);
});

test('a registry is checked in its canonical form', async () => {
  const object = { revision: 3, app: 'default', writer: 'w', ledger: 'keyring^AB', entities: [{ id: 'b', a: 'é' }] };
  const text = '{"app":"default","entities":[{"a":"é","id":"b"}],"ledger":"keyring^AB","revision":3,"writer":"w"}';
  const registrySignature = base64(ed25519.sign(gatewayMessage('registry', utf8(text)), seeds.ed25519));
  const whole = { ...object, registrySignature, lifecycle: 'not signed' };
  assert.deepEqual(await verifyRegistry(JSON.stringify(whole), edKey), { state: 'verified', content: object });
  assert.deepEqual(readRegistry(whole), { state: 'signed, key not pinned', content: object });
  await assert.rejects(verifyRegistry(whole, undefined as unknown as Bytes), { code: 'unknown_key' });
  await assert.rejects(verifyRegistry({ ...object, revision: 4, registrySignature }, edKey), { code: 'bad_signature' });
  await assert.rejects(verifyRegistry(object, edKey), { code: 'not_signed' });
  await assert.rejects(verifyRegistry('{}', edKey), { code: 'not_signed' });
  await assert.rejects(verifyRegistry({ app: 'default', registrySignature }, edKey), { code: 'bad_answer' });
});

test('a member is cut out as it stands', () => {
  assert.equal(memberText(' { "a" : [ 1.0 , "]" ] , "b":{"a":2}}', 'a'), '[ 1.0 , "]" ]');
  assert.equal(memberText('{"\\u0061": -1e5}', 'a'), '-1e5');
  assert.equal(memberText('{"b":{"a":2},"c":"\\"a\\":3"}', 'a'), undefined);
  assert.equal(memberText('{"a":1,"a":2}', 'a'), undefined);
  for (const odd of ['', '[]', '"a"', '{"a":1', '{}']) assert.equal(memberText(odd, 'a'), undefined, odd);
});
