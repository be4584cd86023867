import { after } from 'node:test';
import { Browser, skipBrowser } from './chromium.js';
import { skipPage } from './dist.js';
import { skipNode, until, type Node } from './node.js';
import { Page } from './page.js';

/** `false`, or why tests of the page in a browser are skipped. */
export const skip = skipNode || skipBrowser || skipPage;

let browser: Browser | null = null;
after(() => browser?.close());

/** A page of its own that shows the door of `node`, signed in by nobody. */
export async function pageOf(node: Node): Promise<Page> {
  browser ??= new Browser();
  const page = await Page.open(browser);
  await page.serveFrom(node.door);
  return page;
}

/** A page that is signed in by a link, and live. */
export async function signedIn(node: Node, hash = ''): Promise<Page> {
  const page = await pageOf(node);
  await page.go(node.link());
  await live(page);
  if (hash) await show(page, hash);
  return page;
}

/** Goes to another part of the page. */
export async function show(page: Page, hash: string): Promise<void> {
  await page.run(`void (location.hash = ${JSON.stringify(hash)})`);
}

/** Waits until the page hears of changes. */
export async function live(page: Page): Promise<void> {
  await page.until(`document.querySelector('[data-line=live]')`);
}

/** The other machine removes most of a folder: a page here that asks about it, and the files that would go. */
export async function held({ laptop, vps }: { laptop: Node; vps: Node }): Promise<{ names: string[]; page: Page }> {
  const names = Array.from({ length: 60 }, (_, at) => `many/${at}.txt`);
  for (const name of names) laptop.write(name, `${name}\n`);
  await until(() => names.every((name) => vps.read(name) !== null));
  const page = await signedIn(laptop);
  vps.remove('many');
  await page.says('1 held change needs you.');
  await page.press('Decide');
  await page.says('many/0.txt would be removed');
  return { names, page };
}
