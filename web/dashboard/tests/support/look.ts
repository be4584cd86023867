// Looks at every page of a real node and keeps pictures: `node build/tests/support/look.js`.
import { mkdirSync, writeFileSync } from 'node:fs';
import { Browser } from './chromium.js';
import { conflict, pair } from './node.js';
import { Page } from './page.js';

const out = process.argv[2] ?? 'build/screenshots';
mkdirSync(out, { recursive: true });
const nodes = await pair({
  'plan.md': '# Plan\n\nmonday: buy bread\ntuesday: write\nwednesday: rest\n', 'dir/a.txt': 'x\n', 'photos/readme.txt': 'photos\n', 'todo.txt': 'one\ntwo\n',
});
const { laptop, vps } = nodes;
vps.write('todo.txt', 'one\ntwo\nthree\n');
await conflict(nodes, 'plan.md', ['# Plan\n\nmonday: buy rolls\ntuesday: write\nwednesday: rest\n', '# Plan\n\nmonday: buy cake\ntuesday: write\nwednesday: rest\n']);
laptop.ok('release', 'publish', 'kiosk', laptop.shared, '--version', '1.0.0');
laptop.ok('release', 'publish', 'kiosk', laptop.shared, '--version', '1.1.0');
laptop.ok('keys', 'new');
laptop.ok('keys', 'rotate');
const browser = new Browser();
const page = await Page.open(browser);
await page.serveFrom(laptop.door);
await page.go(laptop.link());
await page.until(`document.querySelector('[data-line=live]')`);
const pages: [string, string, string][] = [
  ['overview', '#/overview', 'Last changes'], ['files', '#/files/Notes', 'plan.md'], ['file', '#/file/Notes/todo.txt', 'Versions'],
  ['conflict', '#/conflict/Notes/plan.md', 'two versions'], ['links', '#/links', 'Round trip'], ['sagas', '#/sagas', 'committed'],
  ['releases', '#/releases', 'kiosk'], ['keys', '#/keys', 'Ledger'], ['audit', '#/audit', 'The chain is whole'],
];
for (const [name, hash, text] of pages) {
  await page.run(`location.hash = ${JSON.stringify(hash)}`);
  for (const dark of [false, true]) {
    for (const width of [1280, 360]) {
      await page.screen({ width, height: width === 360 ? 1100 : 900, dark });
      await page.says(text);
      await page.until(`!document.querySelector('.loading')`);
      writeFileSync(`${out}/${name}-${width}-${dark ? 'dark' : 'light'}.png`, await page.picture());
    }
    console.log(name, dark, (await page.barriers()).join('\n'), 'wide', await page.run('document.documentElement.scrollWidth + "/" + innerWidth'));
  }
}
console.log(page.faults);
await browser.close();
await vps.down();
await laptop.down();
