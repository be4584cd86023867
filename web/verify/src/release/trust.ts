import { base64, fromBase64 } from '../encoding/base64.js';
import { isObject, member, readObject, type Json, type JsonObject } from '../encoding/json.js';
import { keyringAuthority } from '../ibgib/keystone.js';
import type { VerifiedRecord } from '../ibgib/record.js';
import { Refused } from '../refused.js';
import { ALGORITHMS, PublicPair, type Signature } from '../signature/pair.js';
import { readLastGood, readState, type Deadline, type LastGood, type LedgerRecord, type VersionState } from './ledger.js';
import { address, exactly, hex32, integer, keyVersion, list, positive, string } from './members.js';

/** Bytes of a trust file, at most. */
export const TRUST_BYTES_MAX = 8 * 1024 * 1024;
/** Epochs that are remembered, at most; beyond, the oldest are forgotten. */
const EPOCHS_MAX = 4096;
/** Pairs that are remembered, at most. */
const PAIRS_MAX = 64;
const SCHEMA = 'sealtide/trust/1';
const LEARNED = ['ledger', 'active', 'earlier', 'followed', 'compromised', 'fork'] as const;

/** A pair that was active at some followed epoch. */
export interface TrustedPair {
  readonly pair: PublicPair;
  /** Number of its version; known once a record named it. */
  readonly version: number | null;
  readonly state: VersionState;
  readonly notAfter: Deadline | null;
}

/** Two records of one epoch, both signed as they must be: somebody made two histories. */
export interface Fork {
  epoch: number;
  /** SHA-256 of the signed bytes of the one that was followed, hex. */
  followed: string;
  /** And of the other. */
  other: string;
}

/** The newest recovery that was followed. */
export interface Recovered {
  /** The epoch of its record. */
  epoch: number;
  /** The counter of the keystone frame that proves it; a later recovery has a greater one. */
  frame: number;
}

interface Followed {
  sha256: string;
  /** First kid of the pair that was active after it. */
  kid: string;
}

/**
 * What a verifier trusts for the releases of one registry. Spec: gateway §9.7.
 *
 * A trust begins as the publisher's file and follows the key ledger from there, one epoch after the other. `toFile` gives what
 * was learned too, in the form that `sealtide` reads.
 */
export class Trust {
  /** Address of the first frame of the release timeline. */
  readonly registry: string;
  #root: string | null;
  #epoch: number;
  #ledger: string | null = null;
  /** The active pair of the newest epoch last. */
  #pairs: TrustedPair[];
  #followed = new Map<number, Followed>();
  #compromised: ReadonlyMap<number, LastGood[]> = new Map();
  #fork: Fork | null = null;
  #recovered: Recovered | null = null;

  private constructor(registry: string, epoch: number, root: string | null, active: PublicPair) {
    this.registry = registry;
    this.#root = root;
    this.#epoch = epoch;
    this.#pairs = [{ pair: active, version: null, state: 'active', notAfter: null }];
  }

  /**
   * Reads a trust file.
   *
   * @throws Refused `trust_file`
   */
  static parse(text: string): Trust {
    const wrong = (what: string): Refused => new Refused('trust_file', `no trust file: ${what}`);
    if (text.length > TRUST_BYTES_MAX) throw wrong('it is too long');
    const object = readObject(text, { depth: 16, values: 200_000, integersOnly: true });
    if (!object) throw wrong('it is no JSON');
    if (member(object, 'schema') !== SCHEMA) throw wrong('schema');
    const known = ['schema', 'registry', 'epoch', 'keys', 'root', 'learned'];
    if (Object.keys(object).some((name) => !known.includes(name))) throw wrong('an unknown member');
    const pair = readKeys(member(object, 'keys') ?? null);
    const [registry, epoch] = [address(member(object, 'registry') ?? null), positive(member(object, 'epoch') ?? null)];
    const root = member(object, 'root');
    if (!pair) throw wrong('keys');
    if (root !== undefined && !address(root)) throw wrong('root');
    if (!registry) throw wrong('registry');
    if (!epoch) throw wrong('epoch');
    const trust = new Trust(registry, epoch, root === undefined ? null : (root as string), pair);
    const learned = member(object, 'learned');
    if (learned !== undefined && !trust.#readLearned(learned)) throw wrong('learned');
    return trust;
  }

  /** The newest epoch that was followed. */
  get epoch(): number {
    return this.#epoch;
  }

  /** The owner keystone that can replace a lost key, where a trust file named one. */
  get root(): string | null {
    return this.#root;
  }

  /** Two histories, when there are. */
  get fork(): Fork | null {
    return this.#fork;
  }

  /** The newest recovery. When it is another one than before, forget what was seen of channels: a thief may have shown it. */
  get recovered(): Recovered | null {
    return this.#recovered;
  }

  /** The pair that signs heads at the newest epoch. */
  get active(): PublicPair {
    return this.#pairs.at(-1)!.pair;
  }

  /** Takes the root of another trust file, where this one has none and both trust the same pair at the same epoch. */
  adoptRoot(given: Trust): void {
    const isSame = given.registry === this.registry && given.#epoch === this.#epoch && given.active.equals(this.active);
    if (isSame) this.#root ??= given.#root;
  }

  /**
   * What is known when this trust and another one, which began with the same file, were kept apart and each followed what it was shown:
   * the later recovery, else the higher epoch. A fork of either stays one, and two that followed different records of one epoch are one.
   */
  together(other: Trust): Trust {
    const [mine, others] = [this.#recovered?.frame ?? 0, other.#recovered?.frame ?? 0];
    if (mine !== others) return (mine > others ? this : other).clone();
    const further = (one: number, two: number): Trust => (two > one ? other : this);
    const trust = (this.#epoch === other.#epoch ? further(this.#followed.size, other.#followed.size) : further(this.#epoch, other.#epoch)).clone();
    trust.#fork = this.#fork ?? other.#fork ?? this.#differs(other);
    return trust;
  }

  /** The first epoch at which another trust followed another record. */
  #differs(other: Trust): Fork | null {
    const decided = this.#recovered?.epoch ?? 0;
    for (const [epoch, { sha256 }] of [...this.#followed].sort(([one], [two]) => one - two)) {
      const found = other.#followed.get(epoch)?.sha256 ?? sha256;
      if (found !== sha256 && epoch > decided) return { epoch, followed: sha256, other: found };
    }
    return null;
  }

  /** A copy; following it leaves this one as it is. */
  clone(): Trust {
    const copy = new Trust(this.registry, this.#epoch, this.root, this.active);
    copy.#ledger = this.#ledger;
    copy.#pairs = [...this.#pairs];
    copy.#followed = new Map(this.#followed);
    copy.#compromised = this.#compromised;
    copy.#fork = this.#fork;
    copy.#recovered = this.#recovered;
    return copy;
  }

  /** The pair that has a key of this name. */
  pairOf(kid: string): TrustedPair | undefined {
    return this.#pairs.find((trusted) => trusted.pair.kids.includes(kid));
  }

  /** The last good manifests of a version that was given up; `undefined` when it was not. */
  lastGood(version: number): LastGood[] | undefined {
    return this.#compromised.get(version);
  }

  /**
   * Follows records of the ledger, oldest first; those of earlier epochs are only compared. `frames` are of the keystone that is the
   * root; they prove recoveries. Gives how many epochs were taken; those before the one that is refused stay taken.
   *
   * @throws Refused `trust`: records are missing, out of order, of another ledger, forked, not signed by both pairs, or replace a
   *   lost key unproven. A fork is remembered, so the trust is to be kept even then.
   */
  // Spec: GW-106
  async follow(records: readonly LedgerRecord[], frames: readonly VerifiedRecord[] = []): Promise<number> {
    // The record of the trust file's own epoch: a recovery may go back to it.
    const own = records.find((record) => record.epoch === this.#epoch && this.#followed.size === 0);
    if (own) await this.#followOne(own);
    let taken = await this.#recover(records, frames);
    for (const record of records) {
      if (this.#fork && record.epoch > this.#fork.epoch) throw this.#forked(this.#fork);
      if (await this.#followOne(record)) taken++;
    }
    return taken;
  }

  /** Takes the newest recovery that is proven, with the history that it names. Nothing changes before all of it was checked. */
  async #recover(records: readonly LedgerRecord[], frames: readonly VerifiedRecord[]): Promise<number> {
    const begin = this.#followed.size > 0 ? Math.min(...this.#followed.keys()) : this.#epoch;
    const isNew = (it: LedgerRecord): boolean => it.epoch > begin && this.#followed.get(it.epoch)?.sha256 !== it.sha256;
    const found = records.filter((it) => it.action === 'recover' && isNew(it));
    if (found.length === 0 || this.root === null) return 0;
    const authority = keyringAuthority(this.root, frames);
    const frameOf = (it: LedgerRecord): number => authority.get(it.sha256) ?? 0;
    const newest = found.reduce((best, it) => (frameOf(it) > frameOf(best) ? it : best));
    if (frameOf(newest) <= (this.#recovered?.frame ?? 0)) return 0;
    const path = this.#history(newest, records);
    const next = this.clone();
    next.#goBack(path[0]!.epoch - 1);
    for (const record of path) next.#take(record, await next.#check(record));
    this.#ledger = next.#ledger;
    this.#pairs = next.#pairs;
    this.#followed = next.#followed;
    this.#compromised = next.#compromised;
    this.#epoch = next.#epoch;
    this.#fork = null;
    this.#recovered = { epoch: newest.epoch, frame: frameOf(newest) };
    return path.length;
  }

  /** The records from the last one that is followed already up to `newest`, oldest first. */
  #history(newest: LedgerRecord, records: readonly LedgerRecord[]): LedgerRecord[] {
    const path = [newest];
    for (let at = newest; ; at = path[0]!) {
      const epoch = at.epoch - 1;
      const known = this.#followed.get(epoch);
      if (known ? known.sha256 === at.prev : epoch === this.#epoch) return path;
      const before = records.find((it) => it.epoch === epoch && it.sha256 === at.prev);
      if (!before || (!known && epoch < this.#epoch)) {
        throw refuse(`record ${newest.epoch} of the key ledger does not follow the one that is trusted`);
      }
      path.unshift(before);
    }
  }

  /** Forgets every epoch after `base`, and the pairs that were active only then. */
  #goBack(base: number): void {
    const [kept, gone] = [new Set<string>(), new Set<string>()];
    for (const [epoch, { kid }] of this.#followed) {
      if (epoch <= base) kept.add(kid);
      else gone.add(kid);
    }
    for (const epoch of [...this.#followed.keys()]) if (epoch > base) this.#followed.delete(epoch);
    const kid = this.#followed.get(base)?.kid;
    const active = kid === undefined ? undefined : this.pairOf(kid);
    if (active) {
      const isKept = ({ pair }: TrustedPair): boolean => !pair.kids.some((it) => gone.has(it) && !kept.has(it));
      this.#pairs = [...this.#pairs.filter((it) => it !== active && isKept(it)), active];
    }
    this.#fork = null;
    this.#epoch = base;
  }

  /** Whether the trust is an epoch further. */
  async #followOne(record: LedgerRecord): Promise<boolean> {
    const { epoch } = record;
    if (epoch > this.#epoch + 1) {
      throw refuse(`the key ledger goes on at epoch ${epoch}, the trust ends at epoch ${this.#epoch}: records between are missing`);
    }
    const [known, isNext] = [this.#followed.get(epoch), epoch === this.#epoch + 1];
    if (known?.sha256 === record.sha256) return false;
    // The recovery decided between the histories before it.
    if (known && this.#recovered && epoch <= this.#recovered.epoch) return false;
    if (record.action === 'recover' && (known || isNext)) {
      const what = this.root === null ? 'the trust file names no root that could prove it' : 'the owner that is its root does not say so';
      throw refuse(`record ${epoch} of the key ledger replaces a lost key, and ${what}`);
    }
    if (known) {
      // Anybody can write an unsigned record; only who holds the pair can fork.
      await this.#check(record);
      this.#fork = { epoch, followed: known.sha256, other: record.sha256 };
      throw this.#forked(this.#fork);
    }
    // Older than what this trust began with.
    if (epoch < this.#epoch) return false;
    this.#take(record, await this.#check(record));
    return isNext;
  }

  /** Checks that the pair before and the pair after signed; gives the pair after. The node's own entry is not looked at. */
  async #check(record: LedgerRecord): Promise<PublicPair> {
    const { epoch } = record;
    const before = this.#followed.get(epoch - 1);
    const chain = refuse(`record ${epoch} of the key ledger does not follow the one that is trusted`);
    if (before && record.prev !== before.sha256) throw chain;
    if (this.#ledger !== null && epoch > 1 && record.ledger !== this.#ledger) throw chain;
    const after = record.pairOf(record.active);
    if (!after) throw refuse(`record ${epoch} of the key ledger makes a version sign that has no pair`);
    const known = before && this.pairOf(before.kid)?.pair;
    const signers = known ?? (epoch === this.#epoch + 1 ? this.active : undefined);
    // The epoch of the trust file itself: only its own pair is known, and must be the one that is active.
    if (!signers && !after.equals(this.active)) throw chain;
    // In place of the pair before the owner says that a recovery holds; who asks for that looks at the proof.
    const isAlone = !signers || signers.equals(after) || record.action === 'recover';
    for (const pair of isAlone ? [after] : [signers, after]) await checkSigned(record, pair);
    return after;
  }

  #take(record: LedgerRecord, after: PublicPair): void {
    const rest = this.#pairs.filter((trusted) => !trusted.pair.equals(after));
    const found = this.#pairs.find((trusted) => trusted.pair.equals(after));
    const state = found?.state ?? 'active';
    const pairs: TrustedPair[] = [...rest, { pair: after, version: record.active, state, notAfter: found?.notAfter ?? null }];
    this.#pairs = pairs.slice(-PAIRS_MAX).map((trusted) => {
      const { version } = trusted;
      if (version === null) return trusted;
      return { ...trusted, state: record.states.get(version) ?? 'destroyed', notAfter: record.notAfter.get(version) ?? null };
    });
    this.#compromised = record.compromised;
    this.#epoch = record.epoch;
    if (record.epoch > 1) this.#ledger = record.ledger;
    this.#followed.set(record.epoch, { sha256: record.sha256, kid: after.kids[0] });
    if (this.#followed.size > EPOCHS_MAX) this.#followed.delete(Math.min(...this.#followed.keys()));
  }

  #forked(fork: Fork): Refused {
    const [followed, other] = [fork.followed.slice(0, 16), fork.other.slice(0, 16)];
    return refuse(
      `the key ledger was forked at epoch ${fork.epoch}: records ${followed}… and ${other}… are both signed; take a new trust file from the publisher by another way`,
    );
  }

  /** The trust as a file: what was given out, and what was learned since. */
  toFile(): string {
    const file: JsonObject = {
      schema: SCHEMA,
      registry: this.registry,
      epoch: this.#epoch,
      keys: keysValue(this.active),
    };
    if (this.root !== null) file['root'] = this.root;
    if (this.#followed.size > 0) file['learned'] = this.#learned();
    return JSON.stringify(file);
  }

  #learned(): JsonObject {
    const { epoch, followed, other } = this.#fork ?? {};
    return {
      ledger: this.#ledger,
      active: stateValue(this.#pairs.at(-1)!),
      earlier: this.#pairs.slice(0, -1).map((trusted) => ({ keys: keysValue(trusted.pair), state: stateValue(trusted) })),
      followed: [...this.#followed].sort(([left], [right]) => left - right).map(([at, it]) => [at, it.sha256, it.kid]),
      compromised: [...this.#compromised].map(([version, channels]) => ({
        version: `v${version}`,
        channels: channels.map((good) => ({ ...good })),
      })),
      fork: this.#fork ? [epoch!, followed!, other!] : null,
      ...(this.#recovered ? { recovered: [this.#recovered.epoch, this.#recovered.frame] } : {}),
    };
  }

  #readLearned(value: Json): boolean {
    const object = exactly(value, LEARNED) ?? exactly(value, [...LEARNED, 'recovered']);
    if (!object) return false;
    const recovered = object['recovered'];
    if (recovered !== undefined) {
      const [at, by, ...more] = (Array.isArray(recovered) ? recovered : []).map(integer);
      if (at === undefined || by === undefined || more.length > 0) return false;
      this.#recovered = { epoch: at, frame: by };
    }
    const [ledger, fork] = [object['ledger']!, object['fork']!];
    const earlier = list(object['earlier']!, PAIRS_MAX, (entry): TrustedPair | undefined => {
      const it = exactly(entry, ['keys', 'state']);
      const pair = it && readKeys(it['keys']!);
      const state = it && readPairState(it['state']!);
      return pair && state && { pair, ...state };
    });
    const active = readPairState(object['active']!);
    const followed = list(object['followed']!, EPOCHS_MAX, (entry): [number, Followed] | undefined => {
      if (!Array.isArray(entry) || entry.length !== 3) return undefined;
      const [epoch, sha256, kid] = [integer(entry[0]!), hex32(entry[1]!), string(entry[2]!)];
      return epoch !== undefined && sha256 && kid !== undefined ? [epoch, { sha256, kid }] : undefined;
    });
    const compromised = list(object['compromised']!, PAIRS_MAX, (entry): [number, LastGood[]] | undefined => {
      const it = exactly(entry, ['version', 'channels']);
      const version = it && keyVersion(it['version']!);
      const channels = it && list(it['channels']!, 1024, readLastGood);
      return version && channels ? [version, channels] : undefined;
    });
    const isFork = Array.isArray(fork) && fork.length === 3 && integer(fork[0]!) !== undefined && hex32(fork[1]!) && hex32(fork[2]!);
    if (!earlier || !active || !followed || !compromised || (ledger !== null && !address(ledger)) || (fork !== null && !isFork)) {
      return false;
    }
    if (this.#recovered && followed.length === 0) return false;
    this.#ledger = ledger as string | null;
    this.#pairs = [...earlier, { pair: this.active, ...active }];
    this.#followed = new Map(followed);
    this.#compromised = new Map(compromised);
    this.#fork = Array.isArray(fork) ? { epoch: fork[0] as number, followed: fork[1] as string, other: fork[2] as string } : null;
    return true;
  }
}

async function checkSigned(record: LedgerRecord, pair: PublicPair): Promise<void> {
  const entries = pair.kids.map((kid, at) => record.signatures.find((entry) => entry.kid === kid && entry.alg === ALGORITHMS[at]));
  try {
    await pair.verify('keys1 rotate', record.bytes, entries.filter((entry): entry is Signature => entry !== undefined));
  } catch (error) {
    throw refuse(`record ${record.epoch} of the key ledger: ${(error as Error).message}`);
  }
}

function refuse(message: string): Refused {
  return new Refused('trust', message);
}

function keysValue(pair: PublicPair): Json {
  const keys = [pair.mlDsa, pair.ed25519];
  return ALGORITHMS.map((alg, at) => ({ kid: pair.kids[at]!, alg, publicKey: base64(keys[at]!) }));
}

function readKeys(value: Json): PublicPair | undefined {
  if (!Array.isArray(value) || value.length !== 2) return undefined;
  const keys = value.map((entry, at) => {
    const object = exactly(entry, ['kid', 'alg', 'publicKey']);
    const spelled = object && object['alg'] === ALGORITHMS[at] ? object['publicKey'] : undefined;
    return typeof spelled === 'string' ? fromBase64(spelled) : undefined;
  });
  const pair = keys[0] && keys[1] && PublicPair.of(keys[0], keys[1]);
  const isNamed = value.every((entry, at) => isObject(entry) && entry['kid'] === pair?.kids[at]);
  return isNamed ? pair : undefined;
}

function stateValue({ version, state, notAfter }: TrustedPair): Json {
  return { version: version === null ? null : `v${version}`, state, notAfter };
}

function readPairState(value: Json): Omit<TrustedPair, 'pair'> | undefined {
  const object = exactly(value, ['version', 'state', 'notAfter']);
  if (!object) return undefined;
  const [told, end] = [object['version']!, object['notAfter']!];
  const [version, state] = [told === null ? null : keyVersion(told), readState(object['state']!)];
  if (version === undefined || !state) return undefined;
  return { version, state, notAfter: end === null ? null : (integer(end) ?? 'unreadable') };
}
