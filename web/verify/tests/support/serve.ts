import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A site of files, by their paths; those that are put in later are served too. */
export async function serve(files: Record<string, Uint8Array | string>): Promise<{ base: string; close: () => void }> {
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    const found = files[path];
    const type = path.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8';
    response.writeHead(found === undefined ? 404 : 200, { 'content-type': type }).end(found);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = (): void => {
    server.closeAllConnections();
    server.close();
  };
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
}
