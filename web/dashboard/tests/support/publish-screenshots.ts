// Makes the pictures of the documentation from a real node: `npm run screenshots`.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, test } from 'node:test';
import { live, pageOf, show, skip } from './session.js';
import { PAGES, world } from './world.js';

const OUT = fileURLToPath(new URL('../../../../../docs', import.meta.url));
/** Which pages, and how each is shown. */
const SHOWN = [
  { name: 'overview', width: 1280, height: 820, dark: false },
  { name: 'overview', width: 1280, height: 820, dark: true },
  { name: 'conflict', width: 1280, height: 820, dark: false },
  { name: 'keys', width: 1280, height: 820, dark: true },
  { name: 'files', width: 360, height: 720, dark: false },
];
/** Bytes of a picture, at most. */
const BYTES_MAX = 100_000;

test('the pictures of the documentation', { skip }, async () => {
  mkdirSync(OUT, { recursive: true });
  const nodes = await world();
  after(() => nodes.end());
  const page = await pageOf(nodes.laptop);
  await page.go(nodes.laptop.link());
  await live(page);
  for (const { name, ...screen } of SHOWN) {
    const { hash, text } = PAGES.find((it) => it.name === name)!;
    await page.screen(screen);
    await show(page, hash);
    await page.says(text);
    await page.until(`!document.querySelector('main .loading')`);
    const picture = await page.picture('webp');
    if (picture.length > BYTES_MAX) throw new Error(`${name} has ${picture.length} bytes`);
    writeFileSync(join(OUT, `dashboard-${name}-${screen.width}-${screen.dark ? 'dark' : 'light'}.webp`), picture);
  }
});
