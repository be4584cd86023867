import assert from 'node:assert/strict';
import test, { after, before, describe } from 'node:test';
import { conflict, pair, until, type Node } from '../support/node.js';
import type { Page } from '../support/page.js';
import { held, live, pageOf, show, signedIn, skip } from '../support/session.js';

/** The line of the audit that the newest toast links to, as the node has it. */
async function audited(page: Page, node: Node, command: string): Promise<void> {
  await page.until(`document.querySelector('.toast a')`);
  const seq = Number(await page.run(`[...document.querySelectorAll('.toast a')].at(-1).hash.split('/').at(-1)`));
  const lines = await page.run(`fetch('../api/node/call', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({
    command: 'audit_lines', before: ${seq + 1}, since: null, limit: 1, filter: { event: null, channel: null, thread: null, peer: null } }) }).then((answer) => answer.json())`);
  assert.equal(lines.result.lines[0]['[SEQ]'], seq, `${node.name} has line ${seq}`);
  const line = lines.result.lines[0];
  assert.deepEqual([line['[TES_EVENT]'], line.command, line.outcome], ['console:change', command, 'done']);
}

/** A page at the files of Notes, live, whose sockets stand in `sockets`, so that they can be cut as a network would. */
async function caught(node: Node): Promise<Page> {
  const page = await pageOf(node);
  await page.command('Page.addScriptToEvaluateOnNewDocument', {
    source: 'window.sockets = []; window.WebSocket = class extends WebSocket { constructor(...args) { super(...args); sockets.push(this); } };',
  });
  await page.go(node.link());
  await live(page);
  await show(page, '#/files/Notes');
  await page.says('todo.txt');
  return page;
}

describe('a page that is open while things happen', { skip, timeout: 600_000 }, () => {
  let nodes: { laptop: Node; vps: Node };
  before(async () => {
    nodes = await pair({ 'plan.md': 'monday: bread\ntuesday: rest\n', 'todo.txt': 'one\n' });
  });
  after(async () => {
    await nodes?.vps.down();
    await nodes?.laptop.down();
  });

  test('a file appears while another node writes it, and a newcomer reads what is in step with whom', async () => {
    const { laptop, vps } = nodes;
    const page = await signedIn(laptop);
    await page.says('Notes is in step with vps.');
    await show(page, '#/files/Notes');
    await page.says('todo.txt');
    vps.write('from-vps.txt', 'hello\n');
    await page.says('from-vps.txt');
    await show(page, '#/file/Notes/todo.txt');
    await page.says('created');
    vps.write('todo.txt', 'one\ntwo\n');
    await page.until(`document.querySelector('.diff-new.is-change')?.innerText.includes('two')`);
    assert.match(await page.run(`document.querySelector('tbody tr').innerText`), /@1\b[^]*vps/);
    assert.deepEqual(page.faults, []);
  });

  test('an old version is restored after its effect was shown, and the audit tells', async () => {
    const { laptop, vps } = nodes;
    const page = await signedIn(laptop, '#/file/Notes/todo.txt');
    await page.press('Restore version 0');
    await page.until(`document.querySelector('dialog[open] .diff-old.is-change')?.innerText.includes('two')`);
    await page.press('Restore it');
    await page.says('Version 0 of todo.txt stands again.');
    await until(() => vps.read('todo.txt') === 'one\n');
    await audited(page, laptop, 'restore');
    assert.deepEqual(page.faults, []);
  });

  test('a conflict is settled: both versions, the merge and the base are there, and one is kept', async () => {
    const { laptop, vps } = nodes;
    const page = await signedIn(laptop);
    await conflict(nodes, 'plan.md', ['monday: rolls\ntuesday: rest\n', 'monday: cake\ntuesday: rest\n']);
    await page.says('1 conflict needs you.');
    await page.press('Notes: plan.md');
    await page.says('The two versions');
    const text = await page.run<string>('document.body.innerText');
    for (const part of ['monday: rolls', 'monday: cake', 'The merge, as it stands', 'What both come from', 'monday: bread']) assert.ok(text.includes(part), part);
    const isRollsLeft = await page.run<boolean>(`[...document.querySelectorAll('.diff-old')].some(({ innerText }) => innerText.includes('rolls'))`);
    await page.run(`document.querySelectorAll('.diff-head button')[${isRollsLeft ? 0 : 1}].click()`);
    await page.until(`document.querySelector('dialog[open] .diff-new.is-change')?.innerText.includes('rolls')`);
    await page.press('Keep it');
    await page.says('plan.md is settled.');
    await page.says('Nothing stands against it any more.');
    await audited(page, laptop, 'conflicts_resolve');
    await until(() => [laptop, vps].every((node) => node.read('plan.md') === 'monday: rolls\ntuesday: rest\n'));
    await show(page, '#/overview');
    await page.until(`!document.body.innerText.includes('needs you')`);
    assert.deepEqual(page.faults, []);
  });

  test('a file can be downloaded as it is and as it was', async () => {
    const { laptop } = nodes;
    const page = await signedIn(laptop, '#/file/Notes/plan.md');
    await page.says('Versions');
    const texts = await page.run<string[]>(`Promise.all([...document.querySelectorAll('a[download]')].map(({ href }) => fetch(href).then((answer) => answer.text())))`);
    assert.equal(texts[0], 'monday: rolls\ntuesday: rest\n');
    assert.ok(texts.includes('monday: bread\ntuesday: rest\n'));
  });

  test('a change to most of a folder waits for a person, who sees what it is and decides', async () => {
    const { laptop, vps } = nodes;
    const { names, page } = await held(nodes);
    assert.deepEqual(await page.barriers(), []);
    await page.run(`document.querySelectorAll('dialog input[type=radio]')[1].click()`);
    await page.press('Do it');
    await page.says('Rejected.');
    await audited(page, laptop, 'hold_decide');
    await until(() => names.every((name) => vps.read(name) !== null && laptop.read(name) !== null));
    await page.until(`!document.body.innerText.includes('needs you')`);
    assert.deepEqual(page.faults, []);
  });

  test('after a cut the page says so, comes back by itself, and has missed nothing', async () => {
    const { laptop, vps } = nodes;
    const page = await caught(laptop);
    const offline = (is: boolean): Promise<unknown> => page.command('Network.emulateNetworkConditions', { offline: is, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
    await offline(true);
    await page.run('sockets.at(-1).close()');
    await page.says('The node cannot be reached. What you see may be old');
    assert.equal(await page.run(`document.querySelector('[data-line=cut]').getAttribute('role')`), 'status');
    vps.write('while-away.txt', 'x\n');
    await until(() => laptop.read('while-away.txt') === 'x\n');
    assert.ok(!(await page.run<string>('document.body.innerText')).includes('while-away.txt'));
    await offline(false);
    await live(page);
    await page.says('Live again');
    await page.says('while-away.txt');
    assert.deepEqual(page.faults, []);
  });

  test('a line that ends unheard is found out by the page, which goes on over a new one', async () => {
    const { laptop, vps } = nodes;
    const page = await caught(laptop);
    // Nothing comes any more, not even the end: so it is after a sleep, or behind a proxy that forgot it.
    await page.run(`Object.assign(sockets.at(-1), { onmessage: null, onclose: null }), dispatchEvent(new Event('online'))`);
    vps.write('unheard.txt', 'x\n');
    await page.says('Live again');
    await page.says('unheard.txt');
    assert.equal(await page.run('sockets.length'), 2);
    assert.deepEqual(page.faults, []);
  });

  test('however often a page tries to come back, it has one line', async () => {
    const { laptop } = nodes;
    const page = await caught(laptop);
    // The tokens of two attempts are under way at once.
    await page.run(`(() => {
      const real = fetch;
      Object.assign(window, { held: [], released: 0 });
      const release = async (resolve, asked) => {
        const answer = await real(...asked);
        resolve(answer.clone());
        await answer.text();
        setTimeout(() => (released += 1));
      };
      window.fetch = (...asked) => (String(asked[0]).includes('purpose=ws') ? new Promise((resolve) => held.push(() => release(resolve, asked))) : real(...asked));
      sockets.at(-1).close();
    })()`);
    await page.until('held.length === 1');
    await page.run(`dispatchEvent(new Event('online'))`);
    await page.until('held.length === 2');
    await page.run('held.forEach((release) => void release())');
    await page.until('released === 2');
    await live(page);
    assert.equal(await page.run('sockets.length'), 2);
    assert.deepEqual(page.faults, []);
  });

  test('after the node restarted the page goes on by itself, and has missed nothing', async () => {
    const { laptop } = nodes;
    const page = await signedIn(laptop, '#/files/Notes');
    await page.says('todo.txt');
    const door = new URL(laptop.door).host;
    await laptop.down();
    await page.says('The node cannot be reached.');
    laptop.write('while-down.txt', 'x\n');
    await laptop.up('--gateway', door);
    await page.says('while-down.txt');
    await live(page);
    await page.says('Live again');
    assert.equal(await page.run('location.hash'), '#/files/Notes');
    assert.deepEqual(page.faults, []);
  });

  test('a sign-in that went while the line was cut is missed, and a new link goes on in the same place', async () => {
    const { laptop } = nodes;
    const page = await signedIn(laptop, '#/files/Notes');
    await page.says('todo.txt');
    // In this order: what the page asks without a cookie tells it at once.
    await page.command('Network.emulateNetworkConditions', { offline: true, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
    await page.command('Network.clearBrowserCookies');
    const door = new URL(laptop.door).host;
    await laptop.down();
    await page.says('The node cannot be reached.');
    await page.command('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
    laptop.write('while-out.txt', 'x\n');
    await laptop.up('--gateway', door);
    await page.says('Your sign-in is over.');
    await page.says('sealtide gateway code');
    await page.run(`void (location.href = ${JSON.stringify(laptop.link())})`);
    await page.says('while-out.txt');
    await live(page);
    assert.equal(await page.run('location.hash'), '#/files/Notes');
    assert.deepEqual(page.faults, []);
  });

  test('a ticket is opened as text and as a picture, and taken back', async () => {
    const { laptop } = nodes;
    const page = await signedIn(laptop);
    await page.press('Open a ticket');
    await page.run(`document.querySelector('dialog select[name=role]').value = 'read'`);
    await page.press('Open the ticket');
    await page.says('Treat it like a password');
    assert.deepEqual(await page.barriers(), []);
    const command = await page.run<string>(`document.querySelector('dialog .command code').innerText`);
    assert.match(command, /^sealtide join stt1[a-z0-9]+ DIR$/);
    assert.ok(await page.run(`document.querySelector('dialog img.qr').decode().then(() => true)`));
    await page.press('Done');
    await show(page, '#/links');
    await page.says('Open tickets');
    // There may be others, of those that shared and joined.
    const row = `[...document.querySelectorAll('[aria-label="Open tickets"] tbody tr')].find(({ innerText }) => /\\bread\\b/.test(innerText))`;
    await page.until(row);
    await page.run(`${row}.querySelector('button').click()`);
    await page.until(`!${row}`);
    assert.deepEqual(page.faults, []);
  });

  test('a space is paused and goes on; a node is called otherwise; its link is looked at; it is revoked', async () => {
    const { laptop, vps } = nodes;
    const page = await signedIn(laptop);
    await page.press('Sync now: Notes');
    await page.says('Synced.');
    await page.press('Pause Notes');
    await page.says('Notes is paused.');
    await page.press('Resume Notes');
    await page.says('Notes is in step with vps.');
    await show(page, '#/links');
    await page.press('Rename');
    await page.type('Name on this node', 'the server');
    await page.key('Enter');
    await page.says('vps is called the server now.');
    await page.until(`[...document.querySelectorAll('h2')].some(({ innerText }) => innerText === 'the server')`);
    await page.press('What is wrong?');
    await page.until(`/in the way/.test(document.querySelector('dialog[open] .lead')?.innerText)`);
    await page.key('Escape');
    await page.until(`!document.querySelector('dialog[open]')`);
    await page.press('Revoke');
    await page.says('Notes, where it may write');
    await page.press('Revoke it');
    await page.says('the server is revoked.');
    await audited(page, laptop, 'peers_revoke');
    await until(() => laptop.ok('peers', 'list').peers.every(({ node, revoked }: { node: string; revoked: boolean }) => node !== vps.ready.node || revoked));
    assert.deepEqual(page.faults, []);
  });
});
