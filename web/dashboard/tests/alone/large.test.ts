import assert from 'node:assert/strict';
import test, { after, before, describe } from 'node:test';
import { Node } from '../support/node.js';
import { show, signedIn, skip } from '../support/session.js';

const FILES = 100_000;
const LINES = 10_000;

/** Answers of the node that are made up, since making them true would take longer than looking at them. */
const MADE_UP = `
  const real = window.fetch;
  window.asked = 0;
  const two = (value, width) => String(value).padStart(width, '0');
  window.fetch = async (url, options) => {
    const body = options?.body && String(url).endsWith('api/node/call') ? JSON.parse(options.body) : {};
    if (body.command === 'files') {
      window.asked += 1;
      const start = body.after === null ? 0 : Number(body.after.slice(5, 11)) + 1;
      const end = Math.min(${FILES}, start + body.limit);
      const entries = Array.from({ length: end - start }, (_, at) => ({ name: 'file-' + two(start + at, 6) + '.txt', kind: 'file', bytes: at, time: '2026-01-01T00:00:00.000Z', n: 0, by: 'stn1x', by_name: 'laptop' }));
      return Response.json({ result: { schema: 'sealtide/files/1', space: body.space, under: '', total: ${FILES}, entries, more: end < ${FILES} } });
    }
    if (body.command === 'audit_lines') {
      const top = body.before === null ? ${LINES} : body.before - 1;
      const size = Math.min(body.limit, top, body.since === null ? top : 0);
      const lines = Array.from({ length: size }, (_, at) => ({ '[SEQ]': top - at, '[TIMESTAMP]': 1795886205166, '[TES_EVENT]': 'node:session_opened', '[CHANNEL]': 'COMMAND_CHANNEL', peer: 'stn1x' }));
      return Response.json({ result: { schema: 'sealtide/audit_lines/1', lines, reached: lines.at(-1)?.['[SEQ]'] ?? null, more: top - size > 0 && body.since === null } });
    }
    return real(url, options);
  };
  window.longest = 0;
  new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration); }).observe({ type: 'longtask' });
`;

describe('large lists', { skip, timeout: 240_000 }, () => {
  const node = new Node('laptop');
  before(async () => {
    node.write('a.txt', 'a\n');
    await node.up(node.shared);
  });
  after(() => node.down());

  for (const [what, hash, rows, last] of [['files', '#/files/Notes', FILES, 'file-099999.txt'], ['lines of the audit', '#/audit', LINES, 'Line 1, whole']] as const) {
    test(`${rows} ${what} scroll to their end with few rows in the document`, async () => {
      const page = await signedIn(node);
      await page.run(MADE_UP);
      await show(page, hash);
      await page.until(`document.querySelectorAll('.rows .row').length > 10`);
      await page.run('window.longest = 0');
      let most = 0;
      for (;;) {
        // To the end of what is loaded; the next page comes by itself.
        await page.run(`(() => { const box = document.querySelector('.rows'); box.scrollTop = box.scrollHeight; })()`);
        await page.run('new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))');
        most = Math.max(most, await page.run<number>(`document.querySelectorAll('.rows .row').length`));
        const names = await page.run<string>(`[...document.querySelectorAll('.rows .row')].map((row) => row.querySelector('button')?.getAttribute('aria-label') ?? row.innerText).join('\\n')`);
        if (names.includes(last)) break;
      }
      assert.ok(most < 120, `${most} rows in the document at once`);
      assert.equal(await page.run(`document.querySelector('.rows .row:last-child').getAttribute('aria-setsize')`), String(rows));
      const loading = await page.run<number>('window.longest');
      // Once more from the end to the start, when everything is there.
      await page.run(`(async () => {
        window.longest = 0;
        const box = document.querySelector('.rows');
        for (let step = 100; step >= 0; step -= 1) {
          box.scrollTop = (box.scrollHeight * step) / 100;
          await new Promise((resolve) => requestAnimationFrame(resolve));
        }
      })()`);
      const again = await page.run<number>('window.longest');
      console.log(`${rows} ${what}: at most ${most} rows in the document; longest task ${loading} ms while loading, ${again} ms while scrolling (0: none over 50 ms)`);
      assert.deepEqual(page.faults, []);
    });
  }

  test('a filter finds one of the files that are loaded', async () => {
    const page = await signedIn(node);
    await page.run(MADE_UP);
    await show(page, '#/files/Notes');
    await page.says('file-000000.txt');
    await page.type('Filter', 'file-000042');
    await page.until(`document.querySelectorAll('.rows .row').length === 1`);
    assert.match(await page.run(`document.querySelector('.rows .row').innerText`), /file-000042/);
    assert.deepEqual(page.faults, []);
  });
});
