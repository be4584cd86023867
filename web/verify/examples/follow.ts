/**
 * A page that follows a channel of a publisher, from the trust file of the first day through every change of keys. It reads head and
 * bundle at a gateway, keeps what it learned in the storage of its site, and hands out files only when all of them are proven.
 */
import {
  readHead, readLedgerRecord, Refused, Seen, Trust, verifyBundle, verifyHead, type ReleaseFile, type SignedHead, type SignedManifest,
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

/** Follows one channel of one app. */
export class Follower {
  readonly #app: string;
  readonly #channel: string;
  readonly #storage: Storage;
  #trust: Trust;
  #seen = new Seen();
  /** The manifest of the release that was handed out since the page was loaded, SHA-256. */
  #manifest: string | null = null;

  /** What was kept before goes before `trustFile`, the text of the publisher's trust file. */
  constructor(app: string, channel: string, trustFile: string, storage = localStorage) {
    [this.#app, this.#channel, this.#storage] = [app, channel, storage];
    const kept = storage.getItem(this.#place);
    if (kept === null) {
      this.#trust = Trust.parse(trustFile);
      return;
    }
    const { trust, seen } = JSON.parse(kept);
    [this.#trust, this.#seen] = [Trust.parse(trust), Seen.parse(seen)];
  }

  /**
   * Asks a gateway for the newest release; `null` when that is the one that was handed out before. A page that was loaded again is
   * handed out its release again.
   *
   * @throws Refused when what the gateway gave does not count: go on with what is here. Anything else thrown is the network.
   */
  async look(gateway: string): Promise<Release | null> {
    const head = readHead(await this.#text(`${gateway}/bundle/${this.#app}/head/${this.#channel}`));
    // Who offers what is here already may do so unproven: nothing comes of it.
    if (head.content.manifestSha256 === this.#manifest) return null;
    const { version } = head.content;
    const bundle = (await this.#bundle(gateway, version, head)) ?? (await this.#bundle(gateway, `${version}~${this.#channel}`, head));
    if (!bundle) throw new Refused('not_of_head', `no bundle of ${version} is the one that the head of the channel names`);
    const { manifest, files } = bundle;
    // After the bundle: its chain names the pair that signs heads, unless keys changed after it was made.
    if (head.content.epoch > this.#trust.epoch) await this.#followLedger(gateway);
    await verifyHead(this.#trust, head, Date.now());
    this.#seen.admit(head, manifest, { name: this.#app, channel: this.#channel }, Date.now());
    this.#seen.see(head);
    this.#manifest = manifest.sha256;
    this.#keep();
    return { version, files };
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
    const { manifest } = await verifyBundle(bodyOf(answer), this.#trust, { onFileBytes, onLearned: (trust) => this.#learn(trust) });
    if (manifest.sha256 !== head.content.manifestSha256) return undefined;
    const files = manifest.content.files.map(({ path }) => [path, new Blob(pieces.get(path) ?? [])] as const);
    return { manifest, files: new Map(files) };
  }

  async #followLedger(gateway: string): Promise<void> {
    const records = JSON.parse(await this.#text(`${gateway}/version/keys/ledger?since=${this.#trust.epoch}`));
    if (!Array.isArray(records)) throw new Error('the gateway has no key ledger');
    const trust = this.#trust.clone();
    try {
      await trust.follow(records.map((record, at) => readLedgerRecord(record, `record ${at} of the key ledger`)));
    } finally {
      this.#learn(trust);
    }
  }

  /** The key was replaced by its owner: what a thief showed of the channel before counts no more. */
  #learn(trust: Trust): void {
    const [before, now] = [this.#trust.recovered?.frame, trust.recovered?.frame];
    if (before !== now) this.#seen = new Seen();
    this.#trust = trust;
    this.#keep();
  }

  #keep(): void {
    const [trust, seen] = [this.#trust.toFile(), this.#seen.toFile()];
    this.#storage.setItem(this.#place, JSON.stringify({ trust, seen }));
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

function bodyOf(answer: Response): ReadableStream<Uint8Array> {
  if (!answer.ok || !answer.body) throw new Error(`${answer.url}: ${answer.status}`);
  return answer.body;
}
