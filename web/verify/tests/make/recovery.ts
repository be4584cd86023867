// Makes the vector of a lost key that was replaced, with the binary: `SEALTIDE_BIN=… node build/tests/make/recovery.js FILE`.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const [BINARY, OUT] = [process.env['SEALTIDE_BIN'], process.argv[2]];
if (!BINARY || !OUT) throw new Error('name the binary in SEALTIDE_BIN, and the file to write');
const folder = mkdtempSync(join(tmpdir(), 'sealtide-vector-'));
const path = (name: string): string => join(folder, name);
/** Begin of a file of frames; each has its length before it, four bytes. */
const FRAMES_BEGIN = 'sealtide frames 1\n'.length;

function ok(home: string, args: string[], input = ''): void {
  const { status, stdout, stderr } = spawnSync(BINARY!, ['--json', '--yes', ...args, '--home', path(home)], { input, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${args.join(' ')}: ${status} ${stdout}${stderr}`);
}

/** Publishes a version; its file and its trust file stand beside the home. */
function publish(home: string, version: string): void {
  writeFileSync(path('dist/version'), version);
  ok(home, ['release', 'publish', 'kiosk', path('dist'), '--version', version, '--out', path(`${version}.stb`), '--trust-out', path(`${version}.root`)]);
}

/** What the door of a home says below `route`. */
async function ask(home: string, route: string): Promise<unknown> {
  const door = spawn(BINARY!, ['--json', '--home', path(home), 'gateway', 'run', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const gone = new Promise((resolve) => door.once('exit', resolve));
  const first = await createInterface({ input: door.stdout })[Symbol.asyncIterator]().next();
  const found = await (await fetch(`${JSON.parse(first.value as string).gateway}${route}`)).json();
  door.kill('SIGTERM');
  await gone;
  return found;
}

/** Loses the key, and replaces it with the words. */
function recover(home: string): void {
  rmSync(path(`${home}/gateway.key`));
  ok(home, ['keys', 'recover', '--reason', 'the disk died'], words);
}

/** The owner's frames that a home knows. */
function frames(home: string): Buffer[] {
  ok(home, ['identity', 'export', path(`${home}.frames`)]);
  const bytes = readFileSync(path(`${home}.frames`));
  const found: Buffer[] = [];
  for (let at = FRAMES_BEGIN; at < bytes.length; at += 4 + bytes.readUInt32BE(at)) found.push(bytes.subarray(at + 4, at + 4 + bytes.readUInt32BE(at)));
  return found;
}

/** A bundle in pieces: bytes, and numbers of frames that stand between them. */
function pieces(version: string, known: Buffer[]): (string | number)[] {
  let rest = readFileSync(path(`${version}.stb`));
  const found: (string | number)[] = [];
  for (const [number, frame] of known.entries()) {
    const at = rest.indexOf(new Uint8Array(frame));
    if (at < 0) continue;
    found.push(rest.subarray(0, at).toString('base64'), number);
    rest = rest.subarray(at + frame.length);
  }
  return [...found, rest.toString('base64')];
}

const HEAD = '/bundle/kiosk/head/stable';
const rootOf = (version: string): string => JSON.parse(readFileSync(path(`${version}.root`), 'utf8')).root;

mkdirSync(path('dist'));
ok('stranger', ['init', '--recovery-out', path('stranger.words')]);
publish('stranger', '0.0.1');
ok('home', ['init', '--recovery-out', path('words')]);
const words = readFileSync(path('words'), 'utf8');
publish('home', '1.0.0');
const before = await ask('home', HEAD);
// The owner ends the identity elsewhere, and the publisher does not hear of it.
cpSync(path('home'), path('revoked'), { recursive: true });
ok('revoked', ['identity', 'revoke'], words);
recover('home');
publish('home', '1.1.0');
const [after, nowMs] = [await ask('home', HEAD), Date.now()];
recover('home');
const records = await ask('home', '/version/keys/ledger');
// The owner begins, delegates the device, replaces the key. The last frame is the one that revokes in place of that.
const known = [...frames('home').slice(0, 3), frames('revoked').at(-1)!];

const proven = { records: [0, 1], frames: [0, 1, 2] };
const unproven = { epoch: 1, recovered: null, refused: true };
const followed = { epoch: 2, recovered: [2, 2], refused: false };
const cases = [
  { name: 'followed', steps: [proven], expect: followed },
  { name: 'frames in another order', steps: [{ ...proven, frames: [2, 0, 1] }], expect: followed },
  { name: 'replayed: what is known already changes nothing', steps: [proven, { ...proven, frames: [] }, proven], expect: followed },
  { name: 'no frames', steps: [{ ...proven, frames: [] }], expect: unproven },
  { name: 'the frame that says so is missing', steps: [{ ...proven, frames: [0, 1] }], expect: unproven },
  { name: 'a frame between is missing', steps: [{ ...proven, frames: [0, 2] }], expect: unproven },
  { name: 'another keystone is the root', root: rootOf('0.0.1'), steps: [proven], expect: unproven },
  { name: 'the trust file names no root', root: null, steps: [proven], expect: unproven },
  { name: 'the keystone was revoked', steps: [{ ...proven, frames: [0, 1, 2, 3] }], expect: unproven },
  { name: 'an old proof for a newer record', steps: [{ ...proven, records: [0, 1, 2] }], expect: { ...followed, refused: true } },
  { name: 'an old proof, the record before left out', steps: [{ ...proven, records: [0, 2] }], expect: unproven },
];
const vector = {
  format: 'sealtide-recovery-1',
  now_ms: nowMs,
  trust: JSON.parse(readFileSync(path('1.0.0.root'), 'utf8')),
  records,
  frames: known.map((frame) => frame.toString('base64')),
  bundles: { before: pieces('1.0.0', known), after: pieces('1.1.0', known) },
  heads: { before, after },
  cases,
};
writeFileSync(OUT, `${JSON.stringify(vector, null, 1)}\n`);
rmSync(folder, { recursive: true, force: true });
