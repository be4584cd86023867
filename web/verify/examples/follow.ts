/**
 * A page that follows a channel of a publisher, from the trust file of the first day through every change of keys. It reads head and
 * bundle at a gateway, keeps what it learned in the storage of its site, and hands out files only when all of them are proven.
 */
import {
  readHead, readLedgerRecord, Refused, Seen, Trust, verifyBundle, verifyHead, verifyManifest, type ReleaseFile, type SignedHead, type SignedManifest,
  type TrustedHead,
} from '@sealtide/verify';

/** Letters of an answer that is held as text, at most. */
const TEXT_MAX = 8 * 1024 * 1024;
/** How long a text may take, and a bundle, in ms. */
const [TEXT_MS_MAX, BUNDLE_MS_MAX] = [30_000, 600_000];

/** A release that may run: every byte is what its publisher signed. */
export interface Release {
  version: string;
  /** By the path in the release. */
  files: ReadonlyMap<string, Blob>;
}

/** What a page remembers. */
interface Memory {
  trust: Trust;
  seen: Seen;
  /** The trust file that was given to the page that was loaded last, as {@link Trust.toFile} writes it. */
  given: string;
  /** How often a trust file took the place of what was known. */
  begun: number;
}

/** Follows one channel of one app. */
export class Follower {
  readonly #app: string;
  readonly #channel: string;
  readonly #storage: Storage;
  readonly #given: Trust;
  /** From the first look on. */
  #memory: Memory | null = null;
  /** The manifest of the release that was handed out since the page was loaded. */
  #here: SignedManifest | null = null;
  /** The look that is under way. */
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * `trustFile` is the text of the publisher's trust file. What was kept before goes before it, unless the file is of another registry or
   * of a later epoch, or what is kept was forked and another file was given since, which knows the epoch of the fork.
   *
   * @throws Refused `trust_file`
   */
  constructor(app: string, channel: string, trustFile: string, storage = localStorage) {
    [this.#app, this.#channel, this.#storage, this.#given] = [app, channel, storage, Trust.parse(trustFile)];
  }

  /**
   * Asks a gateway for the newest release; `null` when that is the one that was handed out before. A page that was loaded again is
   * handed out its release again. Looks take turns.
   *
   * @throws Refused when what the gateway gave does not count: go on with what is here. `yanked` when the publisher took back the release
   *   that it names, which may be the one that is here: it runs on until a next one comes, or the page says otherwise, and a page that is
   *   loaded again is not handed it out. Anything else thrown is the network.
   */
  look(gateway: string): Promise<Release | null> {
    const turn = this.#turn.then(() => this.#look(gateway));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #look(gateway: string): Promise<Release | null> {
    const head = readHead(await this.#text(`${gateway}/bundle/${this.#app}/head/${this.#channel}`));
    const { version, manifestSha256, epoch } = head.content;
    await this.#remember();
    const isHere = this.#here?.sha256 === manifestSha256;
    const bundle = isHere
      ? { manifest: this.#here!, files: null }
      : (await this.#bundle(gateway, version, head)) ?? (await this.#bundle(gateway, `${version}~${this.#channel}`, head));
    if (!bundle) throw new Refused('not_of_head', `no bundle of ${version} is the one that the head of the channel names`);
    const { manifest, files } = bundle;
    // After the bundle: its chain names the pair that signs heads, unless keys changed after it was made.
    if (epoch > this.#memory!.trust.epoch) await this.#followLedger(gateway);
    const [{ trust, seen }, newest] = await this.#see(head);
    const release = await verifyManifest(trust, manifest, [], Date.now());
    seen.admit(newest, release, { name: this.#app, channel: this.#channel }, Date.now());
    this.#here = manifest;
    return files && { version, files };
  }

  /** Remembers a head that counts, whatever becomes of its release: it may be the one that takes it back. */
  async #see(head: SignedHead): Promise<[Memory, TrustedHead]> {
    for (;;) {
      const { trust } = this.#memory!;
      const newest = await verifyHead(trust, head, Date.now());
      let counts = false;
      const memory = await this.#remember((memory) => {
        // Another page may have followed a change of keys meanwhile: then the head has to count for that trust.
        counts = isSame(memory.trust, trust);
        if (!counts) return memory;
        memory.seen.isNewest(newest, Date.now());
        memory.seen.see(newest, Date.now());
        return memory;
      });
      if (counts) return [memory, newest];
    }
  }

  /** A bundle that is whole; `undefined` when its manifest is not the one of the head: a version may be out in two channels. */
  async #bundle(gateway: string, name: string, head: SignedHead): Promise<{ manifest: SignedManifest; files: Map<string, Blob> } | undefined> {
    const pieces = new Map<string, Uint8Array<ArrayBuffer>[]>();
    const onFileBytes = ({ path }: ReleaseFile, bytes: Uint8Array): void => {
      if (!pieces.has(path)) pieces.set(path, []);
      pieces.get(path)!.push(bytes.slice());
    };
    const answer = await this.#answer(`${gateway}/bundle/${this.#app}/${name}`, BUNDLE_MS_MAX);
    if (answer.status === 404) return undefined;
    const before = this.#memory!;
    let learning: Promise<unknown> | undefined;
    const onLearned = (trust: Trust): void => void (learning = this.#learn(trust, before));
    const verified = verifyBundle(bodyOf(answer), before.trust, { onFileBytes, onLearned });
    const { manifest } = await verified.finally(() => learning);
    if (manifest.sha256 !== head.content.manifestSha256) return undefined;
    const files = manifest.content.files.map(({ path }) => [path, new Blob(pieces.get(path) ?? [])] as const);
    return { manifest, files: new Map(files) };
  }

  async #followLedger(gateway: string): Promise<void> {
    const before = this.#memory!;
    const records = JSON.parse(await this.#text(`${gateway}/version/keys/ledger?since=${before.trust.epoch}`));
    if (!Array.isArray(records)) throw new Error('the gateway has no key ledger');
    const trust = before.trust.clone();
    try {
      await trust.follow(records.map((record, at) => readLedgerRecord(record, `record ${at} of the key ledger`)));
    } finally {
      await this.#learn(trust, before);
    }
  }

  #learn(trust: Trust, before: Memory): Promise<Memory> {
    return this.#remember((memory) => together({ ...before, trust, seen: new Seen() }, memory));
  }

  /** Takes what other pages of this site remembered meanwhile, changes it, and writes it down, in one step. */
  async #remember(change = (memory: Memory): Memory => memory): Promise<Memory> {
    const step = (): Memory => {
      const kept = readMemory(this.#storage.getItem(this.#place));
      const memory = this.#memory ? together(this.#memory, kept) : begin(this.#given, kept);
      this.#memory = change(memory);
      const { trust, seen } = this.#memory;
      this.#storage.setItem(this.#place, JSON.stringify({ ...this.#memory, trust: trust.toFile(), seen: seen.toFile() }));
      return this.#memory;
    };
    // Pages that are not secure have none; nothing waits within a step.
    const locks = globalThis.navigator?.locks as LockManager | undefined;
    return locks ? locks.request(this.#place, step) : step();
  }

  get #place(): string {
    return `sealtide/${this.#app}/${this.#channel}`;
  }

  #answer(url: string, patienceMs: number): Promise<Response> {
    return fetch(url, { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(patienceMs) });
  }

  async #text(url: string): Promise<string> {
    const [reader, decoder] = [bodyOf(await this.#answer(url, TEXT_MS_MAX)).getReader(), new TextDecoder()];
    let text = '';
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      text += decoder.decode(piece.value, { stream: true });
      if (text.length > TEXT_MAX) throw new Refused('not_a_head', 'the answer of the gateway is too long');
    }
    return text;
  }
}

/** What is kept, as far as it can be read. */
function readMemory(text: string | null): Partial<Memory> {
  const part = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch {
      return undefined;
    }
  };
  const kept = part(() => JSON.parse(text ?? '{}')) ?? {};
  const [trust, seen] = [part(() => Trust.parse(kept.trust)), part(() => Seen.parse(kept.seen))];
  return { ...(trust && { trust }), ...(seen && { seen }), given: String(kept.given), begun: Number(kept.begun) || 0 };
}

/** What a page that was loaded now goes on with. */
function begin(given: Trust, { trust: old, seen, given: before, begun = 0 }: Partial<Memory>): Memory {
  const file = given.toFile();
  // A page gives the file of the first day whenever it is loaded: that one knows nothing of a fork that came later.
  const settles = old?.fork && given.epoch >= old.fork.epoch && file !== before;
  const isTaken = !old || given.registry !== old.registry || given.epoch > old.epoch || settles;
  if (!isTaken) old.adoptRoot(given);
  const trust = isTaken ? given : old;
  const counts = !old || sawFor(old, trust);
  return { trust, seen: (counts && seen) || new Seen(), given: file, begun: begun + (isTaken ? 1 : 0) };
}

/** What a page knows, with what pages of its site kept since. */
function together(own: Memory, kept: Partial<Memory>): Memory {
  const { trust: other, given = own.given, begun = 0 } = kept;
  if (!other) return own;
  // A page that was loaded later took another file: its trust holds here too.
  const [later, trust] = begun > own.begun ? [begun, other] : [own.begun, begun < own.begun ? own.trust : own.trust.together(other)];
  const seen = new Seen();
  if (sawFor(own.trust, trust)) seen.merge(own.seen, Date.now());
  if (kept.seen && sawFor(other, trust)) seen.merge(kept.seen, Date.now());
  return { trust, seen, given, begun: later };
}

/** Whether what was seen with a trust of before counts for another. Where the owner replaced the key since, a thief may have shown it. */
function sawFor(before: Trust, now: Trust): boolean {
  return before.registry === now.registry && (before.recovered?.frame ?? 0) >= (now.recovered?.frame ?? 0);
}

/** Whether the same heads count for two trusts. */
function isSame(one: Trust, other: Trust): boolean {
  const isAt = one.registry === other.registry && one.epoch === other.epoch && one.recovered?.frame === other.recovered?.frame;
  return isAt && one.active.equals(other.active);
}

function bodyOf(answer: Response): ReadableStream<Uint8Array> {
  if (!answer.ok || !answer.body) throw new Error(`${answer.url}: ${answer.status}`);
  return answer.body;
}
