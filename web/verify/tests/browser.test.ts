import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { readBundleHead } from '../src/index.js';
import { Home, skip } from './support/binary.js';
import { Browser, skipBrowser } from './support/chromium.js';
import { serve } from './support/serve.js';
import { FILES, NOW, Publisher, tarOf, zstdOf } from './support/publisher.js';

const HERE = dirname(fileURLToPath(import.meta.url));
const MODULE = new Uint8Array(readFileSync(join(HERE, '../sealtide-verify.browser.js')));
const README = readFileSync(join(HERE, '../../README.md'), 'utf8');

/** Runs in the page: everything is fetched from where the page is from. */
const STORY = `(async () => {
  const { verifyBundle, readBundleHead, verifyManifest, Trust, Refused } = await import('/verify.js');
  const get = async (path) => (await fetch(path)).arrayBuffer();
  const trust = new TextDecoder().decode(await get('/trust'));
  const options = JSON.parse(new TextDecoder().decode(await get('/options')));
  // As a page would do it: straight from the network, never held.
  const { manifest, trust: learned, freshness } = await verifyBundle((await fetch('/bundle')).body, trust, options);
  const bytes = new Uint8Array(await get('/bundle'));
  const head = readBundleHead(bytes);
  const words = [];
  for (const at of [100, 4000, head.length + 9, bytes.length - 1]) {
    const odd = bytes.slice();
    odd[at] ^= 1;
    words.push(await verifyBundle(new Blob([odd]), trust, options).then(() => 'authentic', (error) => error instanceof Refused ? error.code : String(error)));
  }
  const times = [];
  for (let turn = 0; turn < 9; turn++) {
    const begin = performance.now();
    await verifyManifest(learned, head.manifest, [], options.wallMs ?? Date.now());
    times.push(performance.now() - begin);
  }
  times.sort((left, right) => left - right);
  const native = await crypto.subtle.generateKey({ name: 'Ed25519' }, false, ['sign']).then(() => true, () => false);
  return { version: manifest.content.version, epoch: learned.epoch, freshness, words, first: times.at(-1), median: times[4], native };
})()`;

async function inChromium(bundle: Uint8Array, trust: string, options: object): Promise<Record<string, unknown>> {
  const page = '<!doctype html><title>verify</title>';
  const { base, close } = await serve({ '/': page, '/verify.js': MODULE, '/bundle': bundle, '/trust': trust, '/options': JSON.stringify(options) });
  const browser = new Browser();
  try {
    const told = (await browser.inPage(`${base}/`, STORY)) as Record<string, unknown>;
    console.log(`chromium: one manifest in ${(told['median'] as number).toFixed(1)} ms (median of 9), Ed25519 by ${told['native'] ? 'WebCrypto' : 'noble'}`);
    return told;
  } finally {
    await browser.close();
    close();
  }
}

test('size of the browser build', () => {
  console.log(`browser build: ${MODULE.length} bytes, ${gzipSync(MODULE, { level: 9 }).length} with gzip`);
  assert.ok(MODULE.length < 200_000, 'a page would not want to load this');
  assert.doesNotMatch(Buffer.from(MODULE).toString(), /["']node:/, 'a browser has no modules of Node');
});

test('a page of Chromium verifies a bundle that was made here', { skip: skipBrowser }, async () => {
  const publisher = new Publisher();
  publisher.record('init', 1, { v1: 'active' }, [1]);
  const bundle = publisher.bundle(publisher.manifest(), zstdOf(tarOf(FILES)));
  const told = await inChromium(bundle, publisher.trust(), { wallMs: NOW });
  assert.deepEqual([told['version'], told['epoch'], told['freshness']], ['1.0.0', 1, 'not checked']);
  assert.ok(!(told['words'] as string[]).includes('authentic'), String(told['words']));
});

// Proves: GW-110
test('a page of Chromium verifies a bundle of the node', { skip: skip || skipBrowser }, async () => {
  const home = new Home('browser');
  const first = home.publish('1.0.0', { 'index.html': '<p>one</p>' });
  home.ok('keys', 'new');
  home.ok('keys', 'rotate');
  const { bundle } = home.publish('1.1.0', { 'index.html': '<p>two</p>', 'app.js': 'let it = 1;\n'.repeat(5000) });
  const told = await inChromium(new Uint8Array(readFileSync(bundle)), readFileSync(first.trust, 'utf8'), {});
  assert.deepEqual([told['version'], told['freshness']], ['1.1.0', 'not checked']);
  assert.ok((told['epoch'] as number) > 1);
  assert.ok(!(told['words'] as string[]).includes('authentic'), String(told['words']));
});

// Proves: GW-110
test('the examples of the README run as they stand', { skip: skipBrowser }, async () => {
  const publisher = new Publisher();
  publisher.record('init', 1, { v1: 'active' }, [1]);
  const payload = zstdOf(tarOf(FILES));
  const now = { createdAt: new Date().toISOString(), signedAt: new Date().toISOString() };
  const bundle = publisher.bundle(publisher.manifest(FILES, now, payload), payload);
  const manifestSha256 = readBundleHead(bundle)!.manifest.sha256;
  const [issuedAt, notAfter] = [0, 86_400_000].map((later) => new Date(Date.now() + later).toISOString());
  const head = JSON.stringify(publisher.head({ manifestSha256, issuedAt: issuedAt!, notAfter: notAfter! }));
  const page = `<!doctype html><script>globalThis.trust = ${JSON.stringify(publisher.trust())};</script>
    <script type="importmap">{ "imports": { "@sealtide/verify": "/verify.js" } }</script>`;
  const examples = [...README.matchAll(/```js\n(.*?)```/gs)].map(([, text]) => text!);
  assert.equal(examples.length, 2);
  const follow = readFileSync(join(HERE, '../examples/follow.js'), 'utf8');
  const files: Record<string, Uint8Array | string> = {
    '/': page, '/verify.js': MODULE, '/follow.js': follow, '/bundle/kiosk.stb': bundle,
    '/bundle/kiosk/head/stable': head, '/bundle/kiosk/1.0.0': bundle,
  };
  const { base, close } = await serve(files);
  const browser = new Browser();
  try {
    const told = [];
    for (const [number, text] of examples.entries()) {
      files[`/example-${number}.js`] = text.replaceAll('https://releases.example', base);
      const story = `(async () => {
        const lines = [];
        console.log = (line) => void lines.push(line);
        await import('/example-${number}.js');
        return { lines, title: document.title, kept: Object.keys(localStorage).sort() };
      })()`;
      told.push(await browser.inPage(`${base}/`, story));
    }
    // What the first one kept is there for the second one, of the same site.
    const place = 'sealtide/kiosk/stable';
    assert.deepEqual(told, [{ lines: ['1.0.0'], title: '', kept: ['trust'] }, { lines: [], title: 'hello', kept: [place, 'trust'] }]);
    files['/bundle/kiosk.stb'] = bundle.slice(0, -1);
    const refused = (await browser.inPage(`${base}/`, `(async () => {
      const lines = [];
      console.log = (line) => void lines.push(line);
      await import('/example-0.js');
      return lines;
    })()`)) as string[];
    assert.deepEqual(refused, ['payload']);
  } finally {
    await browser.close();
    close();
  }
});
