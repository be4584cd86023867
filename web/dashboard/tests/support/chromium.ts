import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** Where Chromium is: CHROMIUM, else where Debian puts it. */
export const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
/** `false`, or why tests with a browser are skipped. */
export const skipBrowser: false | string = existsSync(CHROMIUM) ? false : `there is no ${CHROMIUM}`;

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- messages of the browser's own protocol
type Anything = any;

/** A headless Chromium, driven over a pipe by its own protocol. */
export class Browser {
  readonly #process: ChildProcess;
  readonly #profile = mkdtempSync(join(tmpdir(), 'sealtide-chromium-'));
  readonly #waiting = new Map<number, { resolve: (result: Anything) => void; reject: (error: Error) => void }>();
  readonly #sessions = new Map<string, (method: string, params: Anything) => void>();
  #last = 0;

  constructor() {
    const flags = [
      '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--no-proxy-server', '--hide-scrollbars',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-pipe', '--force-device-scale-factor=1',
      // A page that was put in the place of the door's own has no address, and could open no socket to loopback.
      '--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets',
      `--user-data-dir=${this.#profile}`, 'about:blank',
    ];
    this.#process = spawn(CHROMIUM, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    let rest = '';
    (this.#process.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop()!;
      for (const message of messages) this.#take(JSON.parse(message));
    });
    this.#process.on('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('Chromium ended'));
    });
  }

  #take({ id, result, error, method, params, sessionId }: Anything): void {
    if (method) {
      this.#sessions.get(sessionId)?.(method, params);
      return;
    }
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result);
  }

  /** Sends a command of the protocol; gives its answer. */
  command(method: string, params: object = {}, sessionId?: string): Promise<Anything> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#last, { resolve, reject });
      (this.#process.stdio[3] as Writable).write(`${JSON.stringify({ id: this.#last, method, params, sessionId })}\0`);
    });
  }

  /** Attaches to a target; events of it go to `listener`. */
  async attach(targetId: string, listener: (method: string, params: Anything) => void): Promise<string> {
    const { sessionId } = await this.command('Target.attachToTarget', { targetId, flatten: true });
    this.#sessions.set(sessionId, listener);
    return sessionId;
  }

  /** Ends it, and removes its profile. */
  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#process.once('exit', resolve));
    // It may be gone before it answers.
    this.command('Browser.close').catch(() => undefined);
    await gone;
    // Its helpers may write for a moment longer.
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 100, retryDelay: 50 });
  }
}
