import assert from 'node:assert/strict';
import test, { after, before, describe } from 'node:test';
import { Node, pair, until } from './support/node.js';
import { held, live, pageOf, show, signedIn, skip } from './support/session.js';

describe('what is asked of the node in the middle of something', { skip, timeout: 300_000 }, () => {
  let nodes: { laptop: Node; vps: Node };
  before(async () => {
    nodes = await pair({ 'plan.md': 'monday: bread\n' });
  });
  after(async () => {
    nodes?.vps.stand(false);
    await nodes?.vps.down();
    await nodes?.laptop.down();
  });

  test('a sync that runs is cancelled, told as such, and tried again', async () => {
    const { laptop, vps } = nodes;
    const page = await signedIn(laptop, '#/sagas');
    await page.says('committed');
    // The other side falls asleep in the middle: what begins now goes on until somebody ends it.
    vps.stand(true);
    laptop.write('later.txt', 'later\n');
    await page.press('Cancel Notes');
    await page.says('The sync of Notes is cancelled.');
    await page.until(`[...document.querySelectorAll('[aria-label="Recent sagas"] tbody tr')].some(({ innerText }) => innerText.includes('cancelled'))`);
    assert.equal(vps.read('later.txt'), null);
    assert.deepEqual(await page.barriers(), []);
    vps.stand(false);
    await until(() => laptop.ok('status').spaces[0].peers[0].connected);
    await page.press('Try again: Notes with vps');
    await page.says('Synced.');
    await until(() => vps.read('later.txt') === 'later\n');
    assert.deepEqual(page.faults, []);
  });

  test('a held change is accepted, and everybody has it', async () => {
    const { laptop, vps } = nodes;
    const { names, page } = await held(nodes);
    // Accepting is what is chosen when nobody chose.
    await page.until(`document.querySelectorAll('dialog input[type=radio]')[0].checked`);
    await page.press('Do it');
    await page.says('Accepted.');
    await until(() => [laptop, vps].every((node) => names.every((name) => node.read(name) === null)));
    await page.until(`!document.body.innerText.includes('needs you')`);
    assert.equal(laptop.read('plan.md'), 'monday: bread\n');
    assert.deepEqual(page.faults, []);
  });
});

describe('a node with keys and releases', { skip, timeout: 300_000 }, () => {
  const node = new Node('archivist');
  before(async () => {
    node.write('index.html', '<h1>kiosk</h1>\n');
    node.variables['SEALTIDE_GATEWAY_SESSION_TTL_MS'] = '20000';
    await node.up(node.shared);
    node.ok('release', 'publish', 'kiosk', node.shared, '--version', '1.0.0');
  });
  after(() => node.down());

  test('old bundles are archived after a preview, and one in the other tier is verified from there', async () => {
    const page = await signedIn(node, '#/releases');
    await page.says('1.0.0');
    await page.press('Archive old bundles');
    await page.says('None is that old.');
    assert.deepEqual(await page.barriers(), []);
    await page.press('Archive them');
    await page.says('0 bundles moved.');
    const tier = (): Promise<string> => page.run(`document.querySelector('[aria-label="Releases of kiosk"] tbody tr td:nth-child(7)').innerText`);
    assert.equal(await tier(), 'standard');
    node.ok('release', 'archive', '--older', '0s');
    await show(page, '#/keys');
    await page.says('Ledger');
    await show(page, '#/releases');
    await page.until(`document.querySelector('[aria-label="Releases of kiosk"] tbody tr td:nth-child(7)')?.innerText === 'infrequent_access'`);
    // It can be verified from there as well.
    await page.press('Verify 1.0.0');
    await page.press('Verify');
    await page.until(`document.querySelector('dialog [data-verified=yes]')`);
    assert.deepEqual(page.faults, []);
  });

  test('the share of each version in the signatures is drawn as it was counted', async () => {
    node.ok('keys', 'new');
    node.ok('keys', 'rotate');
    const page = await signedIn(node, '#/releases');
    await page.press('patch of Main');
    await page.press('Raise it');
    await page.says('Main is 1.0.1 now.');
    const recent = (): Promise<{ signatures: [number, Record<string, number>][] }> =>
      page.run(`fetch('../api/node/call', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ command: 'recent' }) })
        .then((answer) => answer.json()).then(({ result }) => result)`);
    // The node looks at the signatures every ten seconds.
    for (let rows = 0; rows < 2; ) rows = (await recent()).signatures.filter(([, counts]) => counts['v2']).length;
    await show(page, '#/keys');
    await page.says('Signatures by version');
    const chart = `document.querySelector('[role=img][aria-label^="Signatures: "]')`;
    await page.until(`${chart}?.querySelector('canvas')?.width > 0`);
    const [, counts] = (await recent()).signatures.at(-1)!;
    const parts = Object.keys(counts).sort().map((version) => `${version} now ${counts[version]}`);
    assert.equal(await page.run(`${chart}.getAttribute('aria-label')`), `Signatures: ${parts.join(', ')}`);
    // Something is drawn, and not only a box for it.
    await page.until(`(() => {
      const canvas = ${chart}.querySelector('canvas');
      return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte !== 0);
    })()`);
    assert.deepEqual(await page.barriers(), []);
    assert.deepEqual(page.faults, []);
  });

  test('a session is renewed before it ends, on the same line; where it cannot be, the page says so', async () => {
    const page = await pageOf(node);
    await page.command('Page.addScriptToEvaluateOnNewDocument', {
      source: `window.sockets = []; window.told = [];
        window.WebSocket = class extends WebSocket {
          constructor(...args) { super(...args); sockets.push(this); this.addEventListener('message', ({ data }) => told.push(JSON.parse(data))); }
        };`,
    });
    await page.go(node.link());
    await live(page);
    await page.until(`told.filter(({ type }) => type === 'renewed').length >= 1`);
    assert.ok(await page.run(`told.some(({ type, code }) => type === 'notice' && code === 'SESSION_RENEW')`));
    assert.deepEqual(await page.run(`[sockets.length, sockets[0].readyState, document.querySelector('[data-line]').dataset.line]`), [1, 1, 'live']);
    // A renewal that is refused is no renewal: the line ends, and the page says what to do.
    await page.command('Network.clearBrowserCookies');
    await page.says('Your sign-in is over.');
    assert.deepEqual(page.faults, []);
  });
});
