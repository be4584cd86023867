import { conflict, pair, type Node } from './node.js';

/** Where each page is, and a text that is there when it is. */
export const PAGES = [
  { name: 'overview', hash: '#/overview', text: 'Last changes' },
  { name: 'files', hash: '#/files/Notes', text: 'plan.md' },
  { name: 'file', hash: '#/file/Notes/todo.txt', text: 'Difference' },
  { name: 'conflict', hash: '#/conflict/Notes/plan.md', text: 'The two versions' },
  { name: 'links', hash: '#/links', text: 'Throughput' },
  { name: 'sagas', hash: '#/sagas', text: 'committed' },
  { name: 'releases', hash: '#/releases', text: 'Versions that are raised here' },
  { name: 'keys', hash: '#/keys', text: 'Ledger' },
  { name: 'audit', hash: '#/audit', text: 'The chain is whole' },
];

/** Two nodes with something on every page. */
export interface World {
  laptop: Node;
  vps: Node;
  /** A bearer of a reader of `laptop`. */
  bearer: string;
  end: () => Promise<void>;
}

/** Makes it: a conflict, releases, rotated keys. */
export async function world(): Promise<World> {
  const plan = (item: string): string => `# Week\n\nmonday: buy ${item}\ntuesday: write the page\nwednesday: rest\n`;
  let bearer = '';
  const nodes = await pair({
    'plan.md': plan('bread'), 'todo.txt': 'fix the boat\ncall Ada\n', 'recipes/soup.md': '# Soup\n', 'recipes/bread.md': '# Bread\n', 'photos/readme.txt': 'by year\n',
    'accounts.csv': 'day,sum\n1,20\n2,31\n', 'reading list.md': '* Dune\n',
  }, (laptop) => {
    bearer = laptop.ok('gateway', 'bearer', 'watcher', '--role', 'reader').token;
  });
  const { laptop, vps } = nodes;
  vps.write('todo.txt', 'fix the boat\ncall Ada on friday\nbuy rope\n');
  await conflict(nodes, 'plan.md', [plan('rolls'), plan('cake')]);
  laptop.ok('release', 'publish', 'kiosk', laptop.shared, '--version', '1.0.0');
  laptop.ok('release', 'publish', 'kiosk', laptop.shared, '--version', '1.1.0');
  laptop.ok('keys', 'new');
  laptop.ok('keys', 'rotate');
  const end = async (): Promise<void> => {
    await vps.down();
    await laptop.down();
  };
  return { laptop, vps, bearer, end };
}
