import { existsSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The built page of this checkout. */
export const DIST = fileURLToPath(new URL('../../../dist', import.meta.url));
/** `false`, or why tests with the page are skipped. */
export const skipPage: false | string = existsSync(join(DIST, 'index.html')) ? false : 'the page is not built';

/** A page that is served instead of the one in the binary. */
export interface Served {
  answer: (path: string) => { status: number; headers: { name: string; value: string }[]; body: string } | null;
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml',
};

let isTold = false;

/** What a door must be given so that it shows the page of this checkout; null where it has the same one. */
export async function dist(door: string): Promise<Served | null> {
  const own = readFileSync(join(DIST, 'index.html'), 'utf8');
  const answer = await fetch(`${door}/dashboard/`);
  if ((await answer.text()) === own) return null;
  if (!isTold) console.log('the binary has another page than this checkout: the page of the checkout is put in its place');
  isTold = true;
  const policy = answer.headers.get('content-security-policy');
  if (!policy) throw new Error('the door sends no policy for its page');
  return {
    answer(path) {
      const name = path.replace(/^\/dashboard\//, '') || 'index.html';
      const file = join(DIST, name);
      if (!existsSync(file)) return { status: 404, headers: [], body: '' };
      const headers = [
        { name: 'content-type', value: TYPES[extname(name)] ?? 'application/octet-stream' },
        { name: 'content-security-policy', value: policy },
        { name: 'cache-control', value: 'no-store' },
      ];
      return { status: 200, headers, body: readFileSync(file).toString('base64') };
    },
  };
}
