// The package as others get it: packed from a clone without what was built, put into an empty directory, and used from there.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Publisher, FILES, tarOf, zstdOf } from './support/publisher.js';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../..');
const folder = mkdtempSync(join(tmpdir(), 'sealtide-package-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function run(command: string, args: string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stdout} ${stderr}`);
  return stdout;
}

/** A directory of somebody who installed the package: it, and the libraries that it names, no others. */
function installed(): string {
  const [clone, home] = [join(folder, 'clone'), join(folder, 'home')];
  cpSync(ROOT, clone, { recursive: true, filter: (path) => !['node_modules', 'build'].some((name) => path === join(ROOT, name)) });
  symlinkSync(join(ROOT, 'node_modules'), join(clone, 'node_modules'));
  const packed = run('npm', ['pack', '--silent', '--pack-destination', folder], clone).trim().split('\n').at(-1)!;
  const own = join(home, 'node_modules/@sealtide/verify');
  mkdirSync(own, { recursive: true });
  run('tar', ['xzf', join(folder, packed), '--strip-components=1', '-C', own], folder);
  const { dependencies } = JSON.parse(readFileSync(join(own, 'package.json'), 'utf8')) as { dependencies: Record<string, string> };
  for (const name of Object.keys(dependencies)) {
    mkdirSync(dirname(join(home, 'node_modules', name)), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), join(home, 'node_modules', name));
  }
  return home;
}

/** Bytes as others have them, whatever memory is behind them; and what must not compile. */
const TYPED = `
import { readHead, readManifest, Seen, verifyAlone, verifyBumpAnswer, verifyHead, Trust, type Bytes, type Json } from '@sealtide/verify';
import { verifyBundle } from '@sealtide/verify/browser';

export async function use(bytes: Uint8Array, value: Json): Promise<Bytes> {
  await verifyAlone('bump', bytes, '', bytes);
  await verifyBumpAnswer('', { secret: bytes });
  const [head, seen, { manifest, trust }] = [readHead(value), new Seen(), await verifyBundle(bytes, '')];
  seen.admit(await verifyHead(trust, head, 0), manifest, { name: 'kiosk', channel: 'stable' }, 0);
  // @ts-expect-error: nobody verified it.
  seen.see(head, 0);
  // @ts-expect-error: nor is it verified yet.
  seen.see(verifyHead(Trust.parse(''), head, 0), 0);
  // @ts-expect-error: there is no key.
  await verifyBumpAnswer('', {});
  return readManifest(bytes, [{ kid: '', alg: 'Ed25519', sig: bytes }]).bytes;
}
`;

test('what npm packs is whole: code, browser build, command, types, licenses', () => {
  const home = installed();
  const publisher = new Publisher();
  publisher.record('init', 1, { v1: 'active' }, [1]);
  writeFileSync(join(home, 'kiosk.root'), publisher.trust());
  writeFileSync(join(home, 'kiosk.stb'), publisher.bundle(publisher.manifest(), zstdOf(tarOf(FILES))));
  writeFileSync(join(home, 'use.mjs'), `
    import { readFileSync } from 'node:fs';
    import * as whole from '@sealtide/verify';
    import * as bundled from '@sealtide/verify/browser';
    for (const { verifyBundle } of [whole, bundled]) {
      const { manifest } = await verifyBundle(readFileSync('kiosk.stb'), readFileSync('kiosk.root', 'utf8'));
      console.log(manifest.content.version);
    }
    console.log(Object.keys(whole).sort().join() === Object.keys(bundled).sort().join());
    console.log(Object.keys(whole).filter((name) => /^verify(Ed25519|MlDsa87|Hmac)$/.test(name)).join());
  `);
  // What only says yes or no is not there: a forgotten `await` would say yes.
  assert.equal(run(process.execPath, ['use.mjs'], home), '1.0.0\n1.0.0\ntrue\n\n');
  const command = join(home, 'node_modules/@sealtide/verify/bin/sealtide-verify.mjs');
  assert.match(run(process.execPath, [command, 'kiosk.stb', '--trust', 'kiosk.root'], home), /is authentic/);
  writeFileSync(join(home, 'use.mts'), TYPED);
  const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
  const flags = '--noEmit --strict --exactOptionalPropertyTypes --module nodenext --target es2022 --lib es2024,dom --types'.split(' ');
  run(process.execPath, [compiler, 'use.mts', ...flags, ''], home);
  for (const name of ['LICENSE-APACHE', 'LICENSE-MIT']) {
    const [own, told] = [join(ROOT, '../..', name), join(home, 'node_modules/@sealtide/verify', name)].map((path) => readFileSync(path, 'utf8'));
    assert.equal(told, own, name);
  }
});
