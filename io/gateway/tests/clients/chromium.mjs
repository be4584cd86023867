// The story inside pages of headless Chromium, driven over its own protocol. BASE, KEY and CHROMIUM are in the
// environment. The page is one of the gateway: what it fetches is of the same origin, and Chromium decides what it sends.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WebSocket } from 'ws';

const { BASE, KEY, CHROMIUM } = process.env;
const profile = mkdtempSync(join(tmpdir(), 'sealtide-chromium-'));
const browser = spawn(
  CHROMIUM,
  ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--no-proxy-server',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-port=0',
    `--user-data-dir=${profile}`, 'about:blank'],
  { stdio: ['ignore', 'ignore', 'pipe'] },
);

/// The address that Chromium names on its standard error when it is ready.
const address = await new Promise((resolve, reject) => {
  let told = '';
  browser.stderr.on('data', (bytes) => {
    told += bytes;
    const found = told.match(/DevTools listening on (ws:\S+)/);
    if (found) resolve(found[1]);
  });
  browser.on('exit', () => reject(new Error(told)));
});

const control = new WebSocket(address, { perMessageDeflate: false });
await new Promise((resolve) => control.once('open', resolve));
const waiting = new Map();
let last = 0;
control.on('message', (bytes) => {
  const { id, result, error } = JSON.parse(bytes);
  if (!waiting.has(id)) return;
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error.message));
  else resolve(result);
});
const command = (method, params, sessionId) =>
  new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    control.send(JSON.stringify({ id: last, method, params, sessionId }));
  });

/// Runs an expression in a page of `url` and gives back what it comes to.
async function inPage(url, expression) {
  const { targetId } = await command('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await command('Target.attachToTarget', { targetId, flatten: true });
  await command('Page.enable', {}, sessionId);
  const { errorText } = await command('Page.navigate', { url }, sessionId);
  if (errorText) throw new Error(`${url}: ${errorText}`);
  // A navigation is there when the page says so itself.
  const there = `location.href === ${JSON.stringify(url)} && document.readyState === 'complete'`;
  while (!(await command('Runtime.evaluate', { expression: there }, sessionId)).result.value);
  const told = await command('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
  if (told.exceptionDetails) throw new Error(JSON.stringify(told.exceptionDetails));
  return told.result.value;
}

const source = readFileSync(new URL('./story.mjs', import.meta.url));
const module = `import('data:text/javascript;base64,${source.toString('base64')}')`;
const told = await inPage(
  `${BASE}/health`,
  `${module}.then(({ story }) => story({ base: ${JSON.stringify(BASE)}, Socket: WebSocket, pinned: ${JSON.stringify(KEY)} }))`,
);

// A page from elsewhere reads no token, and opens nothing without one.
told.foreign = await inPage(
  'data:text/html,elsewhere',
  `(async () => {
    const fetched = await fetch('${BASE}/api/auth/csrf-token').then(() => 'read', () => 'refused');
    const socket = new WebSocket('${BASE.replace('http', 'ws')}/version/ws', ['tes-ui-v1']);
    const opened = await new Promise((resolve) => { socket.onopen = () => resolve('opened'); socket.onerror = () => resolve('refused'); });
    return { fetched, opened };
  })()`,
);
console.log(JSON.stringify(told));
browser.removeAllListeners('exit');
const gone = new Promise((resolve) => browser.once('exit', resolve));
control.send(JSON.stringify({ id: ++last, method: 'Browser.close' }));
await gone;
// Its helpers may write for a moment longer.
for (let tries = 0; tries < 1000; tries++) {
  try {
    rmSync(profile, { recursive: true, force: true });
    break;
  } catch {}
}
process.exit(0);
