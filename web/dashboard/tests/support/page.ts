import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Browser } from './chromium.js';
import { dist, type Served } from './dist.js';

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- values out of a page
type Anything = any;

/** What a page is shown on. */
export interface Screen {
  width: number;
  height?: number;
  dark?: boolean;
}

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Finds what a person would call so: by its accessible name or its text; the first that is visible. */
const FIND = `(name, selector = 'button, a, summary, input, select, [role=button]') => {
  const nameOf = (element) => element.getAttribute('aria-label') ?? element.closest('label')?.textContent ?? element.textContent;
  return [...(document.querySelector('dialog[open]') ?? document).querySelectorAll(selector)]
    .find((element) => element.offsetParent !== null && nameOf(element).trim().startsWith(name));
}`;

/** A page of a browser with cookies of its own. */
export class Page {
  /** Errors of the console, broken policies, exceptions: none is expected. */
  readonly faults: string[] = [];
  readonly #browser: Browser;
  #session = '';
  #served: Served | null = null;

  private constructor(browser: Browser) {
    this.#browser = browser;
  }

  /** A page, with cookies that it shares with nobody. */
  static async open(browser: Browser): Promise<Page> {
    const page = new Page(browser);
    const { browserContextId } = await browser.command('Target.createBrowserContext');
    const { targetId } = await browser.command('Target.createTarget', { url: 'about:blank', browserContextId, width: 1280, height: 900 });
    page.#session = await browser.attach(targetId, (method, params) => page.#hear(method, params));
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await page.command(`${domain}.enable`);
    await page.screen({ width: 1280 });
    return page;
  }

  /** Sends a command of the protocol to this page. */
  command(method: string, params: object = {}): Promise<Anything> {
    return this.#browser.command(method, params, this.#session);
  }

  #hear(method: string, params: Anything): void {
    if (method === 'Runtime.exceptionThrown') this.faults.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Runtime.consoleAPICalled' && ['error', 'assert'].includes(params.type)) {
      this.faults.push(params.args.map((arg: Anything) => arg.value ?? arg.description).join(' '));
    }
    // A request that is refused, or finds nobody, is told to the console by the browser itself; the page shows it.
    const isFault = method === 'Log.entryAdded' && params.entry.level === 'error' && params.entry.source !== 'network';
    if (isFault ) this.faults.push(params.entry.text);
    if (method === 'Fetch.requestPaused') void this.#serve(params);
  }

  /** Serves the page of this checkout at the door of a node, where that has another one; the door's policy goes with it. */
  async serveFrom(door: string): Promise<void> {
    this.#served = await dist(door);
    if (this.#served) await this.command('Fetch.enable', { patterns: [{ urlPattern: `${door}/dashboard/*` }] });
  }

  async #serve({ requestId, request }: Anything): Promise<void> {
    const file = this.#served?.answer(new URL(request.url).pathname);
    if (!file) return void (await this.command('Fetch.continueRequest', { requestId }));
    await this.command('Fetch.fulfillRequest', { requestId, responseCode: file.status, responseHeaders: file.headers, body: file.body });
  }

  /** Goes somewhere; there when the page says so itself. */
  async go(url: string): Promise<void> {
    const { errorText } = await this.command('Page.navigate', { url });
    if (errorText) throw new Error(`${url}: ${errorText}`);
    await this.until(`document.readyState === 'complete' && location.origin === ${JSON.stringify(new URL(url).origin)}`);
  }

  /** Runs an expression; gives what its promise comes to. */
  async run<T = Anything>(expression: string): Promise<T> {
    const told = await this.command('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true, userGesture: true });
    if (told.exceptionDetails) throw new Error(`${expression}: ${told.exceptionDetails.exception?.description ?? told.exceptionDetails.text}`);
    return told.result.value;
  }

  /** Waits for a fact: an expression that becomes true. A navigation between is no end of it. */
  async until(expression: string): Promise<void> {
    const look = `new Promise((resolve) => { const look = () => ((${expression}) ? resolve(true) : setTimeout(look, 20)); look(); })`;
    const patience = AbortSignal.timeout(60_000);
    for (;;) {
      const gaveUp = new Promise<never>((_, reject) => patience.addEventListener('abort', () => reject(new Error('gave up'))));
      try {
        await Promise.race([this.command('Runtime.evaluate', { expression: look, awaitPromise: true, returnByValue: true }).then((told) => {
          if (told.exceptionDetails) throw new Error(told.exceptionDetails.exception?.description ?? told.exceptionDetails.text);
        }), gaveUp]);
        return;
      } catch (error) {
        if (patience.aborted) throw new Error(`never came true: ${expression}\n${await this.run('document.body.innerText')}\n${this.faults.join('\n')}`);
        // The document it was asked in is gone; the next one is asked.
        if (!/context|navigat|Inspected|collected|uniqueId/i.test(String(error))) throw error;
      }
    }
  }

  /** Waits until the page says a text. */
  async says(text: string): Promise<void> {
    await this.until(`document.body.innerText.includes(${JSON.stringify(text)})`);
  }

  /** Uses what a person would call `name`; the topmost dialog goes first. */
  async press(name: string): Promise<void> {
    const found = `(${FIND})(${JSON.stringify(name)})`;
    await this.until(`${found} && !${found}.getAttribute('aria-disabled')`);
    await this.run(`${found}.click()`);
  }

  /** Types into a field that a person would call `name`. */
  async type(name: string, text: string): Promise<void> {
    const found = `(${FIND})(${JSON.stringify(name)}, 'input, textarea')`;
    await this.until(found);
    await this.run(`${found}.focus(), ${found}.select?.()`);
    await this.command('Input.insertText', { text });
  }

  /** Presses a key. */
  async key(key: string): Promise<void> {
    const text = key === 'Enter' ? { text: '\r' } : {};
    const code = { Tab: 9, Enter: 13, Escape: 27 }[key] ?? 0;
    for (const type of ['keyDown', 'keyUp']) await this.command('Input.dispatchKeyEvent', { type, key, code: key, windowsVirtualKeyCode: code, ...text });
  }

  /** Shows the page on another screen. */
  async screen({ width, height = 900, dark = false }: Screen): Promise<void> {
    await this.command('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
    const features = [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }, { name: 'prefers-reduced-motion', value: 'reduce' }];
    await this.command('Emulation.setEmulatedMedia', { features });
  }

  /** A picture of what is seen. */
  async picture(format: 'png' | 'webp' = 'png'): Promise<Buffer> {
    await this.run('new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))');
    const { data } = await this.command('Page.captureScreenshot', { format, ...(format === 'webp' ? { quality: 82 } : {}) });
    return Buffer.from(data, 'base64');
  }

  /** What keeps people out, by the rules of axe; none is expected. */
  async barriers(): Promise<string[]> {
    await this.command('Runtime.evaluate', { expression: AXE });
    const found = await this.run(`axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
      violations.map(({ id, nodes }) => id + ': ' + nodes.slice(0, 3).map(({ html, failureSummary }) => html + ' ' + failureSummary).join(' | ')))`);
    return found;
  }
}
