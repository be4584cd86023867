import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { Refused } from './refused.js';
import { Trust } from './release/trust.js';
import { verifyBundle } from './release/verify-bundle.js';

/** Exit codes, the same as those of `sealtide release verify`. */
export const EXIT = { good: 0, failed: 1, usage: 2, verification: 5, refused: 6 } as const;

const HELP = `Check a release bundle, with no network: signatures, keys, every file

Usage: sealtide-verify FILE --trust TRUST-FILE [--json]

  --trust FILE   The publisher's trust file
  --json         Print JSON on standard output
  --help         Print this help

Exit codes: 0 authentic, 1 a file cannot be read, 2 usage, 5 verification failed, 6 no trust
`;

/** What the command prints, and its exit code. */
export interface CommandResult {
  exit: number;
  /** For standard output. */
  out: string;
  /** For standard error. */
  error: string;
}

/** Runs the command; `args` are those behind its name. Never throws. */
export async function run(args: string[]): Promise<CommandResult> {
  let options: { trust?: string | undefined; json?: boolean | undefined; help?: boolean | undefined };
  let files: string[];
  try {
    const known = { trust: { type: 'string' }, json: { type: 'boolean' }, help: { type: 'boolean' } } as const;
    ({ values: options, positionals: files } = parseArgs({ args, options: known, allowPositionals: true }));
  } catch (error) {
    return failure(EXIT.usage, 'usage', (error as Error).message, args.includes('--json'));
  }
  const json = options.json ?? false;
  if (options.help) return { exit: EXIT.good, out: HELP, error: '' };
  const [file, ...more] = files;
  if (file === undefined || more.length > 0) return failure(EXIT.usage, 'usage', 'name one FILE; --help tells more', json);
  if (options.trust === undefined) {
    const text = `${file}: nothing says whose releases these are: name the publisher's trust file with --trust FILE`;
    return failure(EXIT.refused, 'no_trust', text, json);
  }
  try {
    const trust = Trust.parse(await readFile(options.trust, 'utf8'));
    return await verified(file, trust, json);
  } catch (error) {
    if (!(error instanceof Refused)) return failure(EXIT.failed, 'io', (error as Error).message, json);
    if (error.code === 'trust_file') return failure(EXIT.usage, 'trust', `${options.trust}: ${error.message}`, json);
    return failure(EXIT.verification, error.code, `${file}: ${error.message}`, json);
  }
}

async function verified(file: string, trust: Trust, json: boolean): Promise<CommandResult> {
  const { size } = await stat(file);
  const bundle = await verifyBundle(createReadStream(file), trust, { size });
  const { content } = bundle.manifest;
  const answer = {
    schema: 'sealtide/release_verify/1',
    file,
    app: content.name,
    version: content.version,
    channel: content.channel,
    seq: content.seq,
    key_version: `v${content.keyVersion}`,
    epoch: bundle.trust.epoch,
    created: new Date(content.createdAt).toISOString(),
    files: content.files.length,
    bytes: content.unpackedSize,
    authentic: true,
    freshness: bundle.freshness,
  };
  const words = `${content.name} ${content.version} (${content.channel}, release ${content.seq}) is authentic; freshness not checked`;
  return { exit: EXIT.good, out: `${json ? JSON.stringify(answer) : words}\n`, error: '' };
}

function failure(exit: number, code: string, message: string, json: boolean): CommandResult {
  const out = json ? `${JSON.stringify({ error: { code, message } })}\n` : '';
  return { exit, out, error: json ? '' : `sealtide-verify: ${message}\n` };
}
