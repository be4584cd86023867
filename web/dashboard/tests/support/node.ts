import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after } from 'node:test';
import { createInterface } from 'node:readline';

/** The binary of the node: SEALTIDE_BIN. Without it, tests that need it say so and are skipped. */
export const BINARY = process.env['SEALTIDE_BIN'] ?? '';
/** `false`, or why tests with the binary are skipped. */
export const skipNode: false | string = existsSync(BINARY) ? false : 'SEALTIDE_BIN names no binary';

/** A folder of this process, gone when its tests are. */
export const folder = mkdtempSync(join(tmpdir(), 'sealtide-dashboard-'));
after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }));

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- documents of the command line
type Document = any;

/** A home, and the node that runs in it. */
export class Node {
  readonly home: string;
  readonly shared: string;
  /** What it said when it was ready. */
  ready: Document = null;
  /** Variables of its environment, besides those of this process. */
  readonly variables: Record<string, string> = {};
  #process: ChildProcess | null = null;
  #panicked = '';
  #removed = 0;

  constructor(readonly name: string) {
    this.home = join(folder, `${name}-home`);
    this.shared = join(folder, name, 'Notes');
    mkdirSync(this.shared, { recursive: true });
  }

  /** Where browsers reach it. */
  get door(): string {
    return this.ready.gateway;
  }

  /** Starts it; returns when it is ready. `args` go to `up`. */
  async up(...args: string[]): Promise<void> {
    const all = ['--json', '--home', this.home, 'up', ...args, '--listen', '127.0.0.1:0'];
    const started = spawn(BINARY, all, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...this.variables } });
    this.#process = started;
    started.stderr!.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('panicked')) this.#panicked += text;
    });
    const lines = createInterface({ input: started.stdout! });
    this.ready = await new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        const document = JSON.parse(line);
        if (document.schema === 'sealtide/ready/1') resolve(document);
      });
      started.once('exit', (code) => reject(new Error(`up ended with ${code}`)));
    });
  }

  /** Lets it stand still, as a machine that sleeps, or go on. */
  stand(still: boolean): void {
    this.#process?.kill(still ? 'SIGSTOP' : 'SIGCONT');
  }

  /** Stops it, and fails when it panicked. */
  async down(): Promise<void> {
    const running = this.#process;
    if (!running) return;
    const gone = new Promise((resolve) => running.once('exit', resolve));
    if (running.exitCode === null) {
      running.kill('SIGTERM');
      await gone;
    }
    this.#process = null;
    if (this.#panicked) throw new Error(this.#panicked);
  }

  /** Runs a command of it that must work. */
  ok(...args: string[]): Document {
    const { status, stdout, stderr } = spawnSync(BINARY, ['--json', ...args, '--home', this.home], { encoding: 'utf8', maxBuffer: 1 << 28 });
    if (status !== 0) throw new Error(`${args.join(' ')}: ${status} ${stderr} ${stdout}`);
    const lines = stdout.trim().split('\n');
    return JSON.parse(lines.at(-1)!);
  }

  /** A link that signs in once. */
  link(): string {
    return `${this.door}/dashboard/#code=${this.ok('gateway', 'code').code}`;
  }

  /** Writes a file of the shared folder. */
  write(path: string, text: string): void {
    const file = join(this.shared, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }

  /** Takes a directory out of the shared folder, in one step: one by one its files would be several changes. */
  remove(path: string): void {
    renameSync(join(this.shared, path), join(folder, `${this.name}-removed-${this.#removed++}`));
  }

  /** A file of the shared folder; null while it is not there. */
  read(path: string): string | null {
    const file = join(this.shared, path);
    return existsSync(file) ? readFileSync(file, 'utf8') : null;
  }
}

/** Waits for a fact. */
export async function until(fact: () => boolean): Promise<void> {
  while (!fact()) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Two nodes that share `Notes`: one that shared it, one that joined. */
export async function pair(files: Record<string, string>, prepare: (laptop: Node) => void = () => undefined): Promise<{ laptop: Node; vps: Node }> {
  const [laptop, vps] = [new Node('laptop'), new Node('vps')];
  for (const [path, text] of Object.entries(files)) laptop.write(path, text);
  laptop.ok('init');
  prepare(laptop);
  await laptop.up(laptop.shared);
  vps.ok('join', laptop.ready.ticket, vps.shared, '--wait');
  await vps.up();
  laptop.ok('peers', 'rename', vps.ready.node, 'vps');
  vps.ok('peers', 'rename', laptop.ready.node, 'laptop');
  return { laptop, vps };
}

/** Makes a conflict in `path`: both change the same words while they do not see each other. */
export async function conflict({ laptop, vps }: { laptop: Node; vps: Node }, path: string, texts: [string, string]): Promise<void> {
  const newest = (): number => laptop.ok('log', `Notes:${path}`).entries[0].n;
  const before = newest();
  await vps.down();
  laptop.write(path, texts[0]);
  vps.write(path, texts[1]);
  await until(() => newest() > before);
  await vps.up();
  await until(() => laptop.ok('conflicts', 'list').conflicts.length > 0);
}
