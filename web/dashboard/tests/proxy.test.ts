import assert from 'node:assert/strict';
import { createServer, request, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import test, { after, before, describe } from 'node:test';
import { Node } from './support/node.js';
import { live, pageOf, show, skip } from './support/session.js';

const PREFIX = '/tide';

/** A reverse proxy that serves a door below a prefix and says whom it speaks for. */
function proxyTo(door: () => URL) {
  const headers = (from: IncomingMessage) => ({ ...from.headers, 'x-forwarded-for': from.socket.remoteAddress! });
  const path = (from: IncomingMessage): string | null => (from.url!.startsWith(`${PREFIX}/`) ? from.url!.slice(PREFIX.length) : null);
  const server = createServer((from, to) => {
    const wanted = path(from);
    if (!wanted) return void to.writeHead(404).end();
    const { hostname, port } = door();
    const asked = request({ host: hostname, port, path: wanted, method: from.method!, headers: headers(from) }, (answer) => {
      to.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(to);
    });
    asked.on('error', () => to.destroy());
    from.pipe(asked);
  });
  server.on('upgrade', (from, client) => {
    const { hostname, port } = door();
    const upstream = connect(Number(port), hostname, () => {
      const lines = Object.entries(headers(from)).map(([name, value]) => `${name}: ${String(value)}\r\n`);
      upstream.write(`GET ${path(from)} HTTP/1.1\r\n${lines.join('')}\r\n`);
      upstream.pipe(client).pipe(upstream);
    });
    for (const socket of [upstream, client]) socket.on('error', () => [upstream, client].forEach((end) => end.destroy()));
  });
  return server;
}

describe('behind a reverse proxy', { skip, timeout: 240_000 }, () => {
  const node = new Node('laptop');
  const proxy = proxyTo(() => new URL(node.door));
  let base = '';
  before(async () => {
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    const host = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    base = `http://${host}${PREFIX}`;
    node.write('plan.md', 'one\n');
    node.ok('init');
    for (const [name, value] of [['trusted_proxies', '127.0.0.1/32'], ['allowed_hosts', host], ['allowed_origins', `http://${host}`]]) {
      node.ok('config', 'set', `gateway.${name}`, value!);
    }
    await node.up(node.shared);
  });
  after(async () => {
    await node.down();
    proxy.closeAllConnections();
    proxy.close();
  });

  test('the page works below a prefix, live, and changes what it may', async () => {
    const page = await pageOf(node);
    await page.go(`${base}/dashboard/#code=${node.ok('gateway', 'code').code}`);
    await live(page);
    await page.says('Notes is on this node alone.');
    await page.press('Pause Notes');
    await page.says('Notes is paused.');
    await show(page, '#/files/Notes');
    await page.says('plan.md');
    node.ok('resume');
    node.write('later.md', 'two\n');
    await page.says('later.md');
    assert.deepEqual(page.faults, []);
  });
});
