import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { after, before, describe } from 'node:test';
import { Node } from './support/node.js';
import { live, pageOf, signedIn, skip } from './support/session.js';

describe('signing in', { skip, timeout: 240_000 }, () => {
  const node = new Node('laptop');
  before(async () => {
    node.write('plan.md', 'one\n');
    await node.up(node.shared);
  });
  after(() => node.down());

  test('the link that `up` prints signs in, and its code leaves the address at once', async () => {
    const page = await pageOf(node);
    await page.go(node.ready.dashboard);
    await page.says('Notes is on this node alone.');
    assert.equal(await page.run('location.hash'), '#/overview');
    assert.equal(await page.run('history.length'), 2, 'no entry of the history holds the code');
    await live(page);
    const [shown] = await page.run<number[]>(`[Math.round(performance.now())]`);
    const ready = await page.run<number>('Math.round(performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd)');
    console.log(`the document was ready after ${ready} ms, the page was signed in and live before ${shown} ms`);
    assert.deepEqual(page.faults, []);
  });

  test('a link that was used says so, and what to do', async () => {
    const page = await pageOf(node);
    await page.go(node.ready.dashboard);
    await page.says('That link was used already');
    await page.says('sealtide gateway code');
    assert.equal(await page.run('location.hash'), '#/overview');
    assert.deepEqual(await page.barriers(), []);
    assert.deepEqual(page.faults, []);
  });

  test('a code can be typed, as it is or with its whole link, by keyboard alone', async () => {
    for (const proof of [node.ok('gateway', 'code').code, node.link()]) {
      const page = await pageOf(node);
      await page.go(`${node.door}/dashboard/`);
      await page.type('Code', proof);
      await page.key('Enter');
      await live(page);
      assert.deepEqual(page.faults, []);
    }
  });

  test('a wrong code and a wrong passphrase are told apart', async () => {
    const page = await pageOf(node);
    await page.go(`${node.door}/dashboard/`);
    await page.type('Code', 'A'.repeat(43));
    await page.key('Enter');
    await page.says('This code is not known');
    await page.press('Or with a name');
    await page.type('Name', 'nobody');
    await page.type('Passphrase', 'wrong');
    await page.key('Enter');
    await page.says('Name or passphrase is wrong.');
  });

  test('who signs out sees nothing any more', async () => {
    const page = await signedIn(node);
    await page.press('Sign out');
    await page.says('You are signed out.');
    assert.equal(await page.run(`fetch('../api/node/call', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"command":"status"}' }).then(({ status }) => status)`), 401);
    assert.deepEqual(page.faults, []);
  });

  test('a page of another origin can neither read nor change nor listen', async () => {
    const foreign = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html><title>foreign</title>')).listen(0, '127.0.0.1');
    await new Promise((resolve) => foreign.once('listening', resolve));
    try {
      const page = await signedIn(node);
      // The same browser, with the cookie of the node: `localhost` and 127.0.0.1 are other sites, other ports other origins.
      await page.go(`http://127.0.0.1:${(foreign.address() as AddressInfo).port}/`);
      const door = JSON.stringify(node.door);
      const read = await page.run(`fetch(${door} + '/api/auth/session', { credentials: 'include' }).then(() => 'read', () => 'refused')`);
      const call = await page.run(`fetch(${door} + '/api/node/call', { method: 'POST', credentials: 'include', headers: { 'content-type': 'text/plain' }, mode: 'no-cors', body: '{"command":"down"}' }).then(() => 'sent', () => 'refused')`);
      const heard = await page.run(`new Promise((resolve) => {
        const socket = new WebSocket(${door}.replace('http', 'ws') + '/version/ws', ['tes-ui-v2']);
        socket.onopen = () => resolve('open');
        socket.onerror = () => resolve('refused');
      })`);
      assert.deepEqual([read, heard], ['refused', 'refused']);
      console.log(`a foreign page: reading ${read}, calling blindly ${call}, listening ${heard}`);
      assert.equal(node.ok('status').running, true, 'what it sent blindly did nothing');
    } finally {
      foreign.close();
    }
    const evil = { origin: 'https://evil.example', 'content-type': 'application/json' };
    for (const path of ['/api/auth/session', '/api/node/call']) {
      const answer = await fetch(node.door + path, { method: 'POST', headers: evil, body: '{"code":"x"}' });
      assert.ok([401, 403].includes(answer.status), `${path} ${answer.status}`);
    }
    assert.equal((await fetch(`${node.door}/api/auth/csrf-token`, { headers: evil })).status, 403);
  });
});
