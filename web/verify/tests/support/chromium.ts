import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** Where Chromium is: CHROMIUM, else where Debian puts it. */
export const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
/** `false`, or why tests with a browser are skipped. */
export const skipBrowser: false | string = existsSync(CHROMIUM) ? false : `there is no ${CHROMIUM}`;

interface Waiting {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- answers of the browser's own protocol
  resolve: (result: any) => void;
  reject: (error: Error) => void;
}

/** A headless Chromium, driven over a pipe by its own protocol. */
export class Browser {
  readonly #process: ChildProcess;
  readonly #profile = mkdtempSync(join(tmpdir(), 'sealtide-chromium-'));
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

  constructor() {
    const flags = [
      '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--no-proxy-server',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-pipe',
      `--user-data-dir=${this.#profile}`, 'about:blank',
    ];
    this.#process = spawn(CHROMIUM, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    let rest = '';
    (this.#process.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop()!;
      for (const message of messages) this.#answer(message);
    });
    this.#process.on('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('Chromium ended'));
    });
  }

  #answer(message: string): void {
    const { id, result, error } = JSON.parse(message);
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result);
  }

  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- answers of the browser's own protocol
  #command(method: string, params: object = {}, sessionId?: string): Promise<any> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#last, { resolve, reject });
      (this.#process.stdio[3] as Writable).write(`${JSON.stringify({ id: this.#last, method, params, sessionId })}\0`);
    });
  }

  /** Runs an expression in a page of `url`; gives what its promise comes to, as JSON. */
  async inPage(url: string, expression: string): Promise<unknown> {
    const { targetId } = await this.#command('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.#command('Target.attachToTarget', { targetId, flatten: true });
    await this.#command('Page.enable', {}, sessionId);
    const { errorText } = await this.#command('Page.navigate', { url }, sessionId);
    if (errorText) throw new Error(`${url}: ${errorText}`);
    // A navigation is there when the page says so itself.
    const there = `location.href === ${JSON.stringify(url)} && document.readyState === 'complete'`;
    while (!(await this.#command('Runtime.evaluate', { expression: there }, sessionId)).result.value);
    const told = await this.#command('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
    if (told.exceptionDetails) throw new Error(JSON.stringify(told.exceptionDetails));
    return told.result.value;
  }

  /** Ends it, and removes its profile. */
  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#process.once('exit', resolve));
    // It may be gone before it answers.
    this.#command('Browser.close').catch(() => undefined);
    await gone;
    // Its helpers may write for a moment longer.
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 100, retryDelay: 50 });
  }
}
