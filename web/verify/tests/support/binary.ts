import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/** The binary of the node: SEALTIDE_BIN. Without it, tests that need it say so and are skipped. */
export const BINARY = process.env['SEALTIDE_BIN'] ?? '';
/** `false`, or why tests with the binary are skipped. */
export const skip: false | string = existsSync(BINARY) ? false : 'SEALTIDE_BIN names no binary';

/** What a command came to. */
export interface Ran {
  code: number;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- documents of the command line
  document: any;
  error: string;
}

/** A folder of this process, gone when its tests are. */
export const folder = mkdtempSync(join(tmpdir(), 'sealtide-verify-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Runs the binary; its standard output is JSON. */
export function sealtide(args: string[], input?: string): Ran {
  const all = ['--json', ...args];
  const { status, stdout, stderr } = spawnSync(BINARY, all, { encoding: 'utf8', maxBuffer: 1 << 28, ...(input === undefined ? {} : { input }) });
  if (stderr.includes('panicked')) throw new Error(stderr);
  const isOne = args[0] !== 'ibgib' && stdout.trim() !== '';
  return { code: status ?? -1, document: isOne ? JSON.parse(stdout) : stdout, error: stderr };
}

/** A home of a publisher, and what it makes. */
export class Home {
  readonly path: string;
  #made = 0;

  constructor(name: string) {
    this.path = join(folder, name);
  }

  /** Runs a command that must work. */
  ok(...args: string[]): Ran['document'] {
    const ran = sealtide([...args, '--home', this.path]);
    if (ran.code !== 0) throw new Error(`${args.join(' ')}: ${ran.code} ${ran.error} ${JSON.stringify(ran.document)}`);
    return ran.document;
  }

  /** Ships files; gives the paths of bundle and trust file, and what the command said. */
  publish(version: string, files: Record<string, string | Uint8Array>): { bundle: string; trust: string; told: Ran['document'] } {
    const directory = join(folder, `dist-${version}-${this.#made++}`);
    for (const [path, bytes] of Object.entries(files)) {
      mkdirSync(join(directory, path, '..'), { recursive: true });
      writeFileSync(join(directory, path), bytes, { mode: path.endsWith('.sh') ? 0o755 : 0o644 });
    }
    const [bundle, trust] = [`${directory}.stb`, `${directory}.root`];
    const told = this.ok('release', 'publish', 'kiosk', directory, '--version', version, '--out', bundle, '--trust-out', trust);
    return { bundle, trust, told };
  }
}

/** Writes a file of this process; gives its path. */
export function file(name: string, bytes: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** What the node says of a bundle: `authentic`, or the word of its refusal. */
export function nodeSays(bundle: string, trust: string): string {
  const ran = sealtide(['release', 'verify', bundle, '--trust', trust, '--home', join(folder, 'nowhere')]);
  return ran.code === 0 ? 'authentic' : `${ran.code} ${ran.document.error.code}`;
}
