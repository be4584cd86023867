import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

/** Another folder of golden vectors than that of the repository: it may lack some. */
const OTHER = process.env['SEALTIDE_VECTORS'];
const FOLDER = OTHER ?? join(dirname(fileURLToPath(import.meta.url)), '../../../../../vectors');

/** A vector file, as its format says. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- its README says what stands in it
export type Vectors = any;

function read(folder: string): Vectors[] {
  const path = join(FOLDER, folder);
  if (!existsSync(path)) return [];
  const files = readdirSync(path).filter((name) => name.endsWith('.json'));
  return files.map((name) => JSON.parse(readFileSync(join(path, name), 'utf8')));
}

const files = [...read(''), ...read('ibgib'), ...read('gateway'), ...read('link'), ...read('releases')];
const isKnown = (file: Vectors): boolean => typeof file.format === 'string' || file.algorithm === 'HMAC-SHA256';

test('there are vectors', () => {
  if (!files.some(isKnown)) throw new Error(`no vector file in ${FOLDER}`);
});

/** Runs a test over each file of a format. The repository has one of each; of another folder it says so where there is none. */
export function withVectors(format: string, name: string, body: (file: Vectors) => void | Promise<void>): void {
  const found = files.filter((file) => file.format === format || file.algorithm === format);
  const none = `no file of format ${format} in ${FOLDER}`;
  test(name, { skip: OTHER !== undefined && found.length === 0 && none }, async () => {
    if (found.length === 0) throw new Error(none);
    for (const file of found) await body(file);
  });
}

/** A value with what JSON lacks: `{"$u":1}` undefined, `{"$n":"NaN"}` numbers, `{"$b":"<hex>"}` bytes. */
export function extended(value: Vectors): Vectors {
  if (Array.isArray(value)) return value.map(extended);
  if (typeof value !== 'object' || value === null) return value;
  const names = Object.keys(value);
  if (names.length === 1 && names[0] === '$u') return undefined;
  if (names.length === 1 && names[0] === '$n') return Number(value.$n);
  if (names.length === 1 && names[0] === '$b') return new Uint8Array(Buffer.from(value.$b, 'hex'));
  const copy: Vectors = {};
  for (const name of names) Object.defineProperty(copy, name, { value: extended(value[name]), enumerable: true, writable: true, configurable: true });
  return copy;
}
