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
      // A page that a test puts in the place of another has no address, and could open no socket to loopback.
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

  /** Opens a tab; it is there when its page says so itself. */
  async open(url: string): Promise<Tab> {
    const { targetId } = await this.command('Target.createTarget', { url: 'about:blank' });
    const tab = new Tab(this, await this.attach(targetId, () => undefined));
    await tab.go(url);
    return tab;
  }

  /** Runs an expression in a new tab of `url`; gives what its promise comes to, as JSON. */
  async inPage(url: string, expression: string): Promise<unknown> {
    return (await this.open(url)).run(expression);
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

/** A tab of a browser. */
export class Tab {
  readonly #browser: Browser;
  readonly #session: string;

  constructor(browser: Browser, session: string) {
    [this.#browser, this.#session] = [browser, session];
  }

  /** Goes to an address. */
  async go(url: string): Promise<void> {
    await this.#browser.command('Page.enable', {}, this.#session);
    const { errorText } = await this.#browser.command('Page.navigate', { url }, this.#session);
    if (errorText) throw new Error(`${url}: ${errorText}`);
    while (!(await this.run(`location.href === ${JSON.stringify(url)} && document.readyState === 'complete'`)));
  }

  /** Loads the page again; what stood in the old one is gone. */
  async reload(): Promise<void> {
    await this.run('void (globalThis.isOld = true)');
    await this.#browser.command('Page.reload', {}, this.#session);
    while (!(await this.run('!globalThis.isOld').catch(() => false)));
  }

  /** Runs an expression; gives what its promise comes to, as JSON. */
  async run(expression: string): Promise<unknown> {
    const asked = { expression, awaitPromise: true, returnByValue: true };
    const told = await this.#browser.command('Runtime.evaluate', asked, this.#session);
    if (told.exceptionDetails) throw new Error(JSON.stringify(told.exceptionDetails));
    return told.result.value;
  }
}
