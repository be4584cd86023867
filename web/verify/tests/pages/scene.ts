// What two nodes made of a scene, looked at in a page: each record of both spaces is verified, and each merge is made again.
import { encodeRecord, readRecord, Refused, type VerifiedRecord } from '../../src/index.js';
import { mergedAddress } from '../support/merge.js';

/** What the page found. */
export interface Scene {
  /** Records of both spaces, verified. */
  records: number;
  /** Addresses of both spaces, in order; the same ones where the nodes are in step. */
  addresses: [string[], string[]];
  /** Merged versions: what they are called, and what the page makes of the versions that they unite. */
  merged: { address: string; again: string; text: string; conflicts: number }[];
  /** What is said of a merged version when its text is changed, and when its relation to the lost side is. */
  changed: string[];
}

async function space(path: string): Promise<VerifiedRecord[]> {
  const lines = (await (await fetch(path)).text()).trim().split('\n').map((line) => JSON.parse(line));
  return lines.filter((row) => row.ib !== undefined && row.base64 === undefined).map((row) => readRecord(encodeRecord(row)));
}

function code(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return error instanceof Refused ? error.code : String(error);
  }
  return 'taken';
}

async function scene(): Promise<Scene> {
  const spaces = [await space('/laptop.jsonl'), await space('/vps.jsonl')] as const;
  const known = new Map(spaces[0].map((it) => [it.address, it]));
  const united = spaces[0].filter(({ record }) => record.rel8ns?.['graftorphan']);
  const merged = united.map(({ address, record }) => {
    const [base, won, lost] = ['graftbase', 'past', 'graftorphan'].map((name) => known.get(record.rel8ns![name]!.at(-1)!)!);
    const data = record.data as { text: string; graft: { conflicts: number } };
    return { address, again: mergedAddress(base!, won!, lost!), text: data.text, conflicts: data.graft.conflicts };
  });
  const changed = united.flatMap(({ record }) => {
    const text = { ...record, data: { ...(record.data as object), text: 'another' } };
    const relation = { ...record, rel8ns: { ...record.rel8ns, graftorphan: record.rel8ns!['graftbase']! } };
    return [text, relation].map((odd) => code(() => readRecord(encodeRecord(odd))));
  });
  const [left, right] = spaces.map((records) => records.map((it) => it.address).sort()) as [string[], string[]];
  return { records: left.length + right.length, addresses: [left, right], merged, changed };
}

Object.assign(globalThis, { scene });
