import assert from 'node:assert/strict';
import test, { after, before, describe } from 'node:test';
import { Node } from './support/node.js';
import { show, signedIn, skip } from './support/session.js';

describe('keys and releases', { skip, timeout: 300_000 }, () => {
  const node = new Node('publisher');
  before(async () => {
    node.write('index.html', '<h1>kiosk</h1>\n');
    await node.up(node.shared);
  });
  after(() => node.down());

  test('where there are none, the page says how they come, and makes them', async () => {
    const page = await signedIn(node, '#/keys');
    await page.says('This node has no signing keys yet.');
    await page.press('Make them');
    await page.says('v1 signs');
    assert.deepEqual(page.faults, []);
  });

  test('keys are rotated and rolled back after a preview, and each links to its line of the audit', async () => {
    const page = await signedIn(node, '#/keys');
    await page.says('v1 signs');
    const open = await page.run<boolean>(`document.body.innerText.includes('prepared')`);
    if (!open) await page.press('Make a new version');
    await page.says('prepared');
    await page.press('Rotate');
    await page.says('From now on v2 signs, instead of v1.');
    assert.deepEqual(await page.barriers(), []);
    await page.press('Rotate');
    await page.says('v2 signs now, instead of v1.');
    assert.equal(node.ok('keys', 'status').active, 'v2');
    await page.until(`document.querySelectorAll('.section tbody tr').length > 2`);
    await page.press('Roll back');
    await page.says('From now on v1 signs, instead of v2.');
    await page.press('Roll back');
    await page.says('v1 signs now, instead of v2.');
    assert.equal(node.ok('keys', 'status').active, 'v1');
    await page.run(`[...document.querySelectorAll('.toast a')].at(-1).click()`);
    await page.until(`document.querySelector('.audit-row.marked')`);
    assert.match(await page.run(`document.querySelector('.audit-row.marked').innerText`), /console:change[^]*change rollback/);
    assert.deepEqual(page.faults, []);
  });

  test('what was asked and left undone changes nothing', async () => {
    const page = await signedIn(node, '#/keys');
    await page.press('Rotate');
    await page.says('From now on v2 signs');
    await page.press('Leave it');
    await page.until(`!document.querySelector('dialog[open]')`);
    assert.equal(node.ok('keys', 'status').active, 'v1');
  });

  test('a bundle is verified in the page, and one of another publisher is not', async () => {
    node.ok('release', 'publish', 'kiosk', node.shared, '--version', '1.0.0');
    const other = new Node('other');
    other.write('a.txt', 'a\n');
    const trust = `${other.home}.root`;
    other.ok('release', 'publish', 'kiosk', other.shared, '--version', '1.0.0', '--trust-out', trust);
    const page = await signedIn(node, '#/releases');
    await page.press('Verify 1.0.0');
    await page.says('the trust comes from this node itself');
    await page.press('Verify');
    await page.until(`document.querySelector('dialog [data-verified=yes]')`);
    await page.says('Signed and whole');
    assert.deepEqual(await page.barriers(), []);
    const { root } = await page.command('DOM.getDocument');
    const { nodeId } = await page.command('DOM.querySelector', { nodeId: root.nodeId, selector: 'dialog input[type=file]' });
    await page.command('DOM.setFileInputFiles', { nodeId, files: [trust] });
    await page.until(`!document.querySelector('dialog .note')`);
    await page.press('Verify');
    await page.until(`document.querySelector('dialog [role=alert]')`);
    assert.ok(!(await page.run(`!!document.querySelector('dialog [data-verified=yes]')`)));
    assert.deepEqual(page.faults, []);
  });

  test('a release is promoted and yanked, a version raised after its preview', async () => {
    const page = await signedIn(node, '#/releases');
    await page.press('Promote 1.0.0');
    await page.type('From stable into', 'beta');
    await page.key('Enter');
    await page.says('1.0.0 is in beta now.');
    // It is out in two channels now, in two files.
    for (const channel of ['stable', 'beta']) {
      await page.press(`Verify 1.0.0 of ${channel}`);
      await page.press('Verify');
      await page.says(`kiosk 1.0.0 of ${channel}, `);
      await page.press('Close');
      await page.until(`!document.querySelector('dialog[open]')`);
    }
    // A node that is not honest gives another release of the same publisher.
    await page.run(`(() => {
      const real = fetch;
      window.fetch = (url, options) => real(String(url).replace('1.0.0~beta', '1.0.0'), options);
    })()`);
    await page.press('Verify 1.0.0 of beta');
    await page.press('Verify');
    await page.says('is that of another release');
    assert.ok(!(await page.run(`!!document.querySelector('dialog [data-verified=yes]')`)));
    await page.press('Close');
    await page.press('Yank 1.0.0 of beta');
    await page.press('Yank it');
    await page.says('1.0.0 is yanked from beta.');
    assert.deepEqual(node.ok('release', 'list').channels.find(({ channel }: { channel: string }) => channel === 'beta').yanked, [1]);
    await page.press('minor of Main');
    await page.says('Main: 1.0.0 → 1.1.0');
    await page.press('Raise it');
    await page.says('Main is 1.1.0 now.');
    await show(page, '#/audit');
    await page.says('The chain is whole');
    assert.deepEqual(page.faults, []);
  });
});
