import assert from 'node:assert/strict';
import test from 'node:test';
import {
  encodeRecord, gibInfo, gibOf, hasTjp, IbGibError, isDna, joinAddress, orderKey, readRecord, Refused, sha256v1, sid, splitAddress,
  validateAddress, validateRecord, validateRelations, verifyTimeline, type IbGib,
} from '../src/index.js';
import { extended, withVectors, type Vectors } from './support/vectors.js';

/** What a call gives, or the code that it throws, as the vectors write it. */
function told(call: () => unknown): unknown {
  try {
    return call();
  } catch (error) {
    if (error instanceof IbGibError) return { throws: error.code };
    throw error;
  }
}

const orNull = (codes: unknown): unknown => (Array.isArray(codes) && codes.length === 0 ? null : codes);

// Proves: SY-1
withVectors('ibgib-hashing-1', 'hashing', ({ cases }) => {
  for (const { id, json, ej, salt, expect } of cases) {
    const record: IbGib = json === undefined ? extended(ej) : JSON.parse(json);
    const parts = sha256v1(record, salt);
    assert.equal(parts.hasData, expect.has_data, id);
    assert.equal(parts.hasRel8ns, expect.has_rel8ns, id);
    assert.equal(parts.canonData, expect.canon_data, id);
    assert.equal(parts.canonRel8ns, expect.canon_rel8ns, id);
    const hashes = [parts.ibHash, parts.rel8nsHash, parts.dataHash, parts.hash];
    assert.deepEqual(hashes, [expect.ib_hash, expect.rel8ns_hash, expect.data_hash, expect.hash], id);
    if (expect.gib_error) assert.throws(() => gibOf(record), { code: expect.gib_error }, id);
    else if (expect.gib !== undefined) assert.equal(gibOf(record), expect.gib, id);
  }
  console.log(`hashing: ${cases.length} cases`);
});

withVectors('ibgib-addresses-1', 'addresses', ({ addresses, intrinsic, rel8ns }) => {
  for (const { addr, parse, validate, gib_info, is_primitive, rejoined } of addresses) {
    assert.deepEqual(told(() => splitAddress(addr)), parse, addr);
    assert.deepEqual(orNull(told(() => validateAddress(addr))), validate, addr);
    if (parse.throws) continue;
    const { gib } = splitAddress(addr);
    if (gib_info) assert.deepEqual(told(() => gibInfo(gib)), gib_info, addr);
    if (is_primitive !== undefined) assert.equal(gib === 'gib', is_primitive, addr);
    assert.equal(joinAddress(splitAddress(addr)), rejoined);
  }
  for (const { ibgib, validate, has_tjp, is_dna } of intrinsic) {
    const record: IbGib = extended(JSON.parse(ibgib));
    assert.deepEqual(orNull(told(() => validateRecord(record))), validate, ibgib);
    assert.deepEqual([hasTjp(record), isDna(record)], [has_tjp, is_dna], ibgib);
  }
  for (const it of rel8ns) assert.deepEqual(orNull(told(() => validateRelations(extended(JSON.parse(it.rel8ns))))), it.validate, it.rel8ns);
});

withVectors('ibgib-transforms-1', 'records that transforms make', ({ cases }) => {
  let records = 0;
  for (const { id, expect } of cases) {
    for (const result of expect.results) {
      const made = [result.new, ...(result.dnas ?? []), ...(result.intermediate ?? [])].filter(Boolean);
      for (const { addr, json } of made) {
        const record: IbGib = JSON.parse(json);
        assert.equal(joinAddress(record as IbGib & { gib: string }), addr, id);
        if (result.intrinsic_valid === true || !made.includes(result.new)) assert.deepEqual(validateRecord(record), [], `${id} ${json}`);
        records++;
      }
    }
  }
  console.log(`transforms: ${records} records`);
});

// Proves: SY-12
withVectors('sealtide-reconcile-1', 'sid and order key', ({ items }) => {
  for (const { ibgib, timeline, addr, sid: expected, order } of items) {
    const record: IbGib & { gib: string } = extended(JSON.parse(ibgib));
    assert.equal(joinAddress(record), addr);
    assert.equal(sid(record), expected, ibgib);
    assert.equal(String(orderKey(addr, timeline)), order, ibgib);
    const read = readRecord(encodeRecord(record));
    assert.deepEqual([read.sid, read.address, read.frame !== null], [expected, addr, timeline]);
  }
});

function frames(count: number): IbGib[] {
  const first: IbGib = { ib: 'note', data: { isTjp: true, uuid: 'u' }, rel8ns: { ancestor: ['note^gib'] } };
  first.gib = gibOf(first);
  const all = [first];
  while (all.length < count) {
    const before = all.at(-1)!;
    const past = [...(before.rel8ns!['past'] ?? []), joinAddress(before as IbGib & { gib: string })];
    const tjp = [joinAddress(first as IbGib & { gib: string })];
    const next: IbGib = { ib: 'note', data: { n: all.length, text: `line ${all.length}` }, rel8ns: { ancestor: ['note^gib'], past, tjp } };
    all.push({ ...next, gib: gibOf(next) });
  }
  return all;
}

function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof Refused) return error.code;
    throw error;
  }
  return 'taken';
}

// Proves: SY-14
test('a timeline is taken whole, and refused with a frame missing, doubled, swapped, foreign or changed', () => {
  const encoded = frames(5).map(encodeRecord);
  const taken = verifyTimeline(encoded);
  assert.deepEqual(taken.map((it) => it.frame!.n), [0, 1, 2, 3, 4]);
  const [a, b, c, d] = encoded as [Uint8Array<ArrayBuffer>, ...typeof encoded];
  const other = encodeRecord({ ib: 'note', data: { isTjp: true, uuid: 'other' }, rel8ns: { ancestor: ['note^gib'] } });
  const stone = encodeRecord({ ib: 'stone', data: { a: 1 } });
  const odd: [string, typeof encoded, string][] = [
    ['none', [], 'bad_timeline'],
    ['without its first', [b!, c!], 'bad_timeline'],
    ['one missing', [a!, b!, d!], 'bad_timeline'],
    ['doubled', [a!, b!, b!], 'bad_timeline'],
    ['swapped', [a!, c!, b!], 'bad_timeline'],
    ['of another', [other, b!], 'bad_timeline'],
    ['a stone', [a!, stone], 'bad_timeline'],
  ];
  for (const [what, list, code] of odd) assert.equal(refusal(() => verifyTimeline(list)), code, what);
  const last = frames(3).at(-1)!;
  const skipped: IbGib = { ib: 'note', data: { n: 7 }, rel8ns: last.rel8ns! };
  assert.equal(refusal(() => verifyTimeline([a!, b!, encodeRecord(skipped)])), 'bad_n');
});

// Proves: SY-14
test('records are accepted strictly', () => {
  const [first, second] = frames(2) as [IbGib, IbGib];
  const ok = encodeRecord(second);
  assert.equal(refusal(() => readRecord(ok)), 'taken');
  const changed = (change: Partial<IbGib>, from: IbGib = second): string => {
    const { gib: _, ...rest } = { ...from, ...change } as IbGib;
    return refusal(() => readRecord(encodeRecord('gib' in change ? { ...rest, gib: change.gib! } : rest)));
  };
  const cases: [string, string][] = [
    [changed({ gib: 'gib' }), 'primitive'],
    [changed({ gib: 'A'.repeat(64) }), 'gib_mismatch'],
    [changed({ gib: 'A'.repeat(32) }), 'bad_addr'],
    [changed({ ib: 'a\u0001' }), 'bad_addr'],
    [changed({ ib: 'a^b' }), 'bad_addr'],
    [changed({ ib: 'x'.repeat(4097) }), 'bad_addr'],
    [changed({ rel8ns: { x: ['a'] } }), 'bad_rel'],
    [changed({ rel8ns: { x: ['a^gib'], y: null } }), 'bad_rel'],
    [changed({ data: 'text' }), 'bad_n'],
    [changed({ data: {} }), 'bad_n'],
    [changed({ data: { isTjp: true, n: 1 } }), 'bad_tjp'],
    [changed({ rel8ns: { ...second.rel8ns, past: [`b^${'B'.repeat(64)}`] } }), 'bad_tjp'],
    [changed({ rel8ns: { ...second.rel8ns, tjp: ['note^gib'] } }), 'bad_tjp'],
    [changed({ data: { text: 'x'.repeat(800_000) } }), 'too_large'],
    [changed({ data: { text: '\ud800' } }, first), 'bad_json'],
    [changed({ data: { deep: JSON.parse('['.repeat(70) + ']'.repeat(70)) } }, first), 'bad_json'],
    [refusal(() => readRecord(ok.subarray(0, ok.length - 1))), 'not_canonical'],
    [refusal(() => readRecord(new Uint8Array([...ok, 0]))), 'not_canonical'],
    [refusal(() => readRecord(new Uint8Array(0))), 'not_canonical'],
  ];
  cases.forEach(([found, expected], at) => assert.equal(found, expected, `case ${at}`));
  // Members in another order: the same value, another text.
  const text = new TextDecoder('latin1').decode(ok).replace('{"n":1,"text":"line 1"}', '{"text":"line 1","n":1}');
  assert.equal(refusal(() => readRecord(Uint8Array.from(text, (letter) => letter.charCodeAt(0)))), 'not_canonical');
});

test('shapes that collide have different sids, and bytes are no text', () => {
  const data: Vectors = { ib: 'same', data: { x: ['a^gib'] } };
  const rel8ns: Vectors = { ib: 'same', rel8ns: { x: ['a^gib'] } };
  assert.equal(gibOf(data), gibOf(rel8ns));
  assert.notEqual(sid(data), sid(rel8ns));
  const bytes = { ib: 'b', data: new TextEncoder().encode('"t"') };
  assert.equal(gibOf(bytes), gibOf({ ib: 'b', data: 't' }));
  assert.notEqual(sid(bytes), sid({ ib: 'b', data: 't' }));
  assert.equal(readRecord(encodeRecord(bytes)).sid, sid(bytes));
});
