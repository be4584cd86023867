// Builds what the package exports, for npm: before it packs the package, and when the folder is installed somewhere. The libraries that
// building needs are fetched, by the lock file, where they are not there yet.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const cwd = dirname(fileURLToPath(import.meta.url));

function npm(...args) {
  // What npm prints on standard output is what was asked of it, as the name of a packed file.
  const { status } = spawnSync('npm', args, { cwd, stdio: ['ignore', process.stderr, 'inherit'], shell: process.platform === 'win32' });
  if (status !== 0) {
    console.error(`@sealtide/verify could not be built: npm ${args.join(' ')} failed in ${cwd}. Run it there to see why.`);
    process.exit(1);
  }
}

if (!existsSync(new URL('node_modules/typescript', import.meta.url))) {
  // Flags go before what the npm that runs this was told, as --global.
  npm('ci', '--ignore-scripts', '--no-global', '--include=dev', '--no-fund', '--no-audit', '--silent');
}
npm('run', '--silent', 'build');
npm('run', '--silent', 'bundle');
