// A follower that is a page, for tests in another language: `node build/tests/fleet/driver.js TRUST-FILE`. It serves a site, opens
// its page in Chromium, and does what JSON lines on standard input say, each with one line of answer. It ends with its input.
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Browser, type Tab } from '../support/chromium.js';

/** What is asked of it. */
type Wish =
  /** The page looks at a gateway; answered with what happened in it so far. */
  | { do: 'look'; gateway: string }
  /** The page is loaded again. */
  | { do: 'reload' }
  /** Remembers the head that a gateway has now, for `old_head`. */
  | { do: 'keep'; gateway: string }
  /** The page looks at somebody who stands before a gateway and changes a byte of the payload, or shows the head that was kept. */
  | { do: 'attack'; gateway: string; how: 'changed_byte' | 'old_head' }
  /** A page of another site looks at a gateway; answered with how that ended. */
  | { do: 'foreign'; gateway: string };

const SCRIPT = readFileSync(fileURLToPath(new URL('../../pages/follower.js', import.meta.url)), 'utf8');
const TRUST = readFileSync(process.argv[2]!, 'utf8');
const PAGE = '<!doctype html><meta charset="utf-8"><title></title><script type="module" src="/follower.js"></script>';
const FILES = new Map<string, [string, string]>([
  ['/', ['text/html; charset=utf-8', PAGE]],
  ['/follower.js', ['text/javascript', SCRIPT]],
  ['/trust', ['application/json', TRUST]],
]);

let kept = '';
let attacked = '';

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url ?? '';
  const attack = /^\/(changed_byte|old_head)(\/.*)$/.exec(path);
  if (attack) return void response.end(await changed(attack[1]!, attack[2]!));
  const [type, body] = FILES.get(path) ?? ['', ''];
  response.writeHead(type ? 200 : 404, { 'content-type': type }).end(body);
}

async function changed(how: string, path: string): Promise<string | Uint8Array> {
  const isHead = path.includes('/head/');
  if (how === 'old_head' && isHead) return kept;
  const answer = await fetch(`${attacked}${path}`);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  // The payload is at the end.
  if (how === 'changed_byte' && !isHead) bytes[bytes.length - 9]! ^= 1;
  return bytes;
}

/** A site of its own; gives its origin. */
async function site(): Promise<string> {
  const server = createServer((request, response) => {
    serve(request, response).catch((error: Error) => response.writeHead(500).end(error.message));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const browser = new Browser();
const [origin, elsewhere] = [await site(), await site()];
const tab = await opened(origin);

async function opened(at: string): Promise<Tab> {
  const opening = await browser.open(`${at}/`);
  await ready(opening);
  return opening;
}

/** Waits until the script of the page ran. */
async function ready(opened: Tab): Promise<void> {
  while (!(await opened.run(`document.readyState === 'complete' && typeof look === 'function'`)));
}

async function looks(gateway: string): Promise<unknown> {
  return tab.run(`look(${JSON.stringify(gateway)}).then((told) => ({ ...told, title: document.title }))`);
}

async function grant(wish: Wish): Promise<unknown> {
  switch (wish.do) {
    case 'look':
      return looks(wish.gateway);
    case 'reload':
      await tab.reload();
      await ready(tab);
      return {};
    case 'keep':
      kept = await (await fetch(`${wish.gateway}/bundle/kiosk/head/stable`)).text();
      return JSON.parse(kept);
    case 'attack':
      attacked = wish.gateway;
      return looks(`${origin}/${wish.how}`);
    case 'foreign': {
      const stranger = await opened(elsewhere);
      return { ended: await stranger.run(`look(${JSON.stringify(wish.gateway)}).then(() => 'read', (error) => error.name)`) };
    }
  }
}

const tell = (answer: unknown): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);
tell({ origin });
for await (const line of createInterface({ input: process.stdin })) {
  tell(await grant(JSON.parse(line) as Wish).catch((error: Error) => ({ failed: String(error) })));
}
await browser.close();
process.exit(0);
