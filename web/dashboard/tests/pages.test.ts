import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { after, before, describe } from 'node:test';
import type { Page } from './support/page.js';
import { PAGES, world, type World } from './support/world.js';
import { live, pageOf, show, signedIn, skip } from './support/session.js';

const PICTURES = fileURLToPath(new URL('../screenshots', import.meta.url));

describe('every page', { skip, timeout: 600_000 }, () => {
  let nodes: World;
  let page: Page;
  before(async () => {
    mkdirSync(PICTURES, { recursive: true });
    nodes = await world();
    page = await signedIn(nodes.laptop);
  });
  after(() => nodes?.end());

  for (const { name, hash, text } of PAGES) {
    test(`${name}: no fault, no barrier, nothing wider than the screen, dark and light`, async () => {
      await show(page, hash);
      for (const dark of [false, true]) {
        for (const width of [1280, 360, 320]) {
          await page.screen({ width, dark });
          await page.says(text);
          await page.until(`!document.querySelector('main .loading')`);
          const [wide, seen] = await page.run<number[]>('[document.documentElement.scrollWidth, innerWidth]');
          assert.ok(wide! <= seen!, `${wide} on ${seen}`);
          if (width !== 320) writeFileSync(join(PICTURES, `${name}-${width}-${dark ? 'dark' : 'light'}.png`), await page.picture());
        }
        await page.screen({ width: 1280, dark });
        assert.deepEqual(await page.barriers(), []);
      }
      assert.deepEqual(page.faults, []);
    });
  }

  test('at 200 % of its size nothing is cut off', async () => {
    for (const { hash, text } of PAGES) {
      await show(page, hash);
      // Twice the size on a screen of 1280 is a screen of 640.
      await page.screen({ width: 640, height: 450 });
      await page.says(text);
      const [wide, seen] = await page.run<number[]>('[document.documentElement.scrollWidth, innerWidth]');
      assert.ok(wide! <= seen!, `${hash}: ${wide} on ${seen}`);
    }
  });

  test('the sign-in page has no barrier either', async () => {
    const stranger = await pageOf(nodes.laptop);
    await stranger.go(`${nodes.laptop.door}/dashboard/`);
    for (const dark of [false, true]) {
      for (const width of [1280, 360]) {
        await stranger.screen({ width, dark });
        await stranger.says('Sign in to this node');
        writeFileSync(join(PICTURES, `sign-in-${width}-${dark ? 'dark' : 'light'}.png`), await stranger.picture());
        assert.deepEqual(await stranger.barriers(), []);
      }
    }
    assert.deepEqual(stranger.faults, []);
  });

  test('keys reach everything in order, focus is seen, and dialogs hold it and give it back', async () => {
    const keyed = await signedIn(nodes.laptop);
    await keyed.says('Last changes');
    const focused = (): Promise<string> => keyed.run(`document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()`);
    await keyed.key('Tab');
    assert.equal(await focused(), 'Skip to the content');
    const seen: string[] = [];
    for (let step = 0; step < 9; step += 1) {
      await keyed.key('Tab');
      seen.push(await focused());
      const outline = await keyed.run<string>(`getComputedStyle(document.activeElement).outlineStyle`);
      assert.equal(outline, 'solid', `the focus on ${seen.at(-1)} is seen`);
    }
    for (const name of ['Overview', 'Files', 'Links', 'Sagas', 'Releases', 'Keys', 'Audit', 'Sign out']) assert.ok(seen.includes(name), `${name} of ${seen.join()}`);
    const button = `[...document.querySelectorAll('button')].find(({ textContent }) => textContent === 'Open a ticket')`;
    await keyed.run(`${button}.focus()`);
    await keyed.key('Enter');
    await keyed.until(`document.querySelector('dialog[open]')?.contains(document.activeElement)`);
    await keyed.key('Escape');
    await keyed.until(`!document.querySelector('dialog') && document.activeElement === ${button}`);
    // Another page, as by the button of the browser that leads back, takes what was asked along.
    await show(keyed, '#/links');
    const revoke = `[...document.querySelectorAll('button')].find(({ textContent }) => textContent.startsWith('Revoke'))`;
    await keyed.until(revoke);
    await keyed.run(`${revoke}.click()`);
    await keyed.until(`document.querySelector('dialog[open]')`);
    await keyed.run('history.back()');
    await keyed.until(`location.hash !== '#/links' && !document.querySelector('dialog')`);
    assert.deepEqual(keyed.faults, []);
  });

  test('what a reader may not do says why, and is refused by the node as well', async () => {
    const { laptop } = nodes;
    const reader = await pageOf(laptop);
    await reader.go(`${laptop.door}/dashboard/`);
    const { bearer } = nodes;
    await reader.run(`fetch('../api/auth/session', { method: 'POST', headers: { authorization: 'Bearer ${bearer}', 'content-type': 'application/json' }, body: '{}' })`);
    await reader.run('location.reload()');
    await live(reader);
    await reader.says('signed in as reader');
    await show(reader, '#/keys');
    await reader.until(`[...document.querySelectorAll('button[aria-disabled]')].some(({ title }) => title.includes('Needs the role admin; you are reader.'))`);
    const tried = await reader.run<number>(`(async () => {
      const { token } = await (await fetch('../api/auth/csrf-token?purpose=http')).json();
      const body = JSON.stringify({ command: 'keys', keys: 'change', change: { change: 'rollback' }, expect: null, reason: '', dry_run: false });
      return (await fetch('../api/node/call', { method: 'POST', headers: { 'content-type': 'application/json', 'x-csrf-token': token }, body })).status;
    })()`);
    assert.equal(tried, 403);
    assert.deepEqual(reader.faults, []);
  });
});
