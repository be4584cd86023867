import { isObject, readObject } from '../encoding/json.js';
import { writeTime } from '../encoding/time.js';
import { Refused } from '../refused.js';
import type { SignedHead } from './head.js';
import { isOver } from './ledger.js';
import type { SignedManifest } from './manifest.js';
import { exactly, hex32, integer, isBelow, name, positive } from './members.js';
import { demandTrusted, trusted, type TrustedHead, type TrustedManifest } from './trusted.js';
import type { Trust, TrustedPair } from './trust.js';

/** How far ahead of the own clock a head may be dated. */
const HEAD_AHEAD_MS_MAX = 86_400_000;

/**
 * Whether a manifest counts: its registry, both signatures, the state of the version that signed. `earlier` are other manifests
 * of its channel, from which a compromised version's last good one can be reached. Says nothing about freshness.
 *
 * @param wallMs now, ms since 1970
 * @throws Refused `other_registry`, `unknown_key`, `bad_signature`, `key_version`, `key_expired`, `key_compromised`
 */
// Spec: GW-103, GW-107
export async function verifyManifest(
  trust: Trust,
  manifest: SignedManifest,
  earlier: readonly SignedManifest[],
  wallMs: number,
): Promise<TrustedManifest> {
  const { content } = manifest;
  checkRegistry(trust, content.registry);
  const by = signer(trust, manifest.signatures[0]?.kid);
  await by.pair.verify('release1 manifest', manifest.bytes, manifest.signatures);
  const signed = by.version ?? content.keyVersion;
  if (signed !== content.keyVersion) throw new Refused('key_version', `it says that v${content.keyVersion} signed, and v${signed} did`);
  switch (by.state) {
    case 'active':
    case 'prepared':
      return trusted(manifest);
    case 'verify-only':
      if (by.notAfter === null || !isOver(by.notAfter, wallMs)) return trusted(manifest);
      break;
    case 'compromised':
      if (isGood(trust, signed, manifest, earlier)) return trusted(manifest);
      throw new Refused(
        'key_compromised',
        `it is signed by v${signed}, which was compromised, and it is not among the releases signed before that`,
      );
    default:
  }
  throw new Refused('key_expired', `it is signed by v${signed}, which has expired`);
}

/**
 * Whether a head counts now: both signatures of the pair that is active at the newest epoch, and in date: neither over, nor signed
 * more than a day from now.
 *
 * @throws Refused `other_registry`, `unknown_key`, `bad_signature`, `head_retired`, `head_ahead`, `head_early`, `head_expired`
 */
// Spec: GW-104
export async function verifyHead(trust: Trust, head: SignedHead, wallMs: number): Promise<TrustedHead> {
  const { content } = head;
  checkRegistry(trust, content.registry);
  const by = signer(trust, head.signatures[0]?.kid);
  await by.pair.verify('release1 head', head.bytes, head.signatures);
  if (!by.pair.equals(trust.active) || by.state === 'compromised') {
    throw new Refused('head_retired', 'the head of the channel is signed by a pair that has been replaced');
  }
  if (content.epoch > trust.epoch) {
    const text = `the head of the channel is of epoch ${content.epoch} of the key ledger, and only ${trust.epoch} is known here`;
    throw new Refused('head_ahead', text);
  }
  if (isAhead(content.issuedAt, wallMs)) {
    const text = `the head of channel ${content.channel} was signed at ${writeTime(content.issuedAt)}, which is more than a day from now`;
    throw new Refused('head_early', text);
  }
  if (wallMs >= content.notAfter) {
    const ended = writeTime(content.notAfter);
    const text = `the head of channel ${content.channel} expired at ${ended}: nobody can say that this is still the newest release`;
    throw new Refused('head_expired', text);
  }
  return trusted(head);
}

/**
 * Whether something belongs to the registry of a trust.
 *
 * @throws Refused `other_registry`
 */
export function checkRegistry(trust: Trust, found: string): void {
  if (found === trust.registry) return;
  throw new Refused('other_registry', `it belongs to another registry (${found}) than the trust (${trust.registry})`);
}

function signer(trust: Trust, kid = ''): TrustedPair {
  const trusted = trust.pairOf(kid);
  if (!trusted) throw new Refused('unknown_key', `it is signed by key ${kid}, which this trust does not know`);
  return trusted;
}

/** Whether a manifest is the last good one of its channel, or one that it names as before it, directly or not. */
function isGood(trust: Trust, version: number, manifest: SignedManifest, earlier: readonly SignedManifest[]): boolean {
  const byHash = new Map(earlier.map((it) => [it.sha256, it]));
  const { registry, channel } = manifest.content;
  const last = trust.lastGood(version) ?? [];
  return last.some((good) => {
    if (good.registry !== registry || good.channel !== channel) return false;
    let at: string | null | undefined = good.manifestSha256;
    for (let steps = 0; steps <= earlier.length && at; steps++) {
      if (at === manifest.sha256) return true;
      at = byHash.get(at)?.content.prev;
    }
    return false;
  });
}

const SEEN_SCHEMA = 'sealtide/seen/1';
/** Channels of one registry that are read back, at most. */
const CHANNELS_MAX = 4096;

/** What a client asks for. */
export interface Wanted {
  /** The app. */
  name: string;
  channel: string;
  /** Take an older or a yanked release all the same. */
  allowDowngrade?: boolean;
}

/** The newest release that was seen in a channel, and when its newest head was signed, ms; 0 where that is not known. */
interface Sight {
  seq: number;
  sha256: string;
  issuedAt: number;
}

/** Whether a head of this time is dated in the future. */
function isAhead(issuedAt: number, wallMs: number): boolean {
  return issuedAt > wallMs + HEAD_AHEAD_MS_MAX;
}

/**
 * The time that later heads of the release must have. One that is ahead of the own clock binds nobody: that clock was ahead as well when it
 * was remembered, and all true heads would be older for as long as it was wrong.
 */
function bindsFrom({ issuedAt }: Sight, wallMs: number): number {
  return isAhead(issuedAt, wallMs) ? 0 : issuedAt;
}

/**
 * What a client remembers of the channels of one registry, so that nobody can show it an older state. It looks only at what {@link verifyHead} and
 * {@link verifyManifest} gave: anything else is a TypeError. Spec: gateway §9.6.
 */
export class Seen {
  readonly #newest = new Map<string, Sight>();

  /**
   * Reads what {@link Seen.toFile} wrote.
   *
   * @throws Refused `seen_file`
   */
  static parse(text: string): Seen {
    const object = exactly(readObject(text, { depth: 4, values: 8 * CHANNELS_MAX, integersOnly: true }) ?? null, ['schema', 'channels']);
    const channels = object && object['schema'] === SEEN_SCHEMA ? object['channels'] : undefined;
    const wrong = new Refused('seen_file', 'this is nothing that was remembered of channels');
    if (!isObject(channels ?? null)) throw wrong;
    const seen = new Seen();
    for (const [channel, value] of Object.entries(channels as object)) {
      // Earlier versions wrote no time down.
      const it = exactly(value, ['seq', 'sha256', 'issuedAt']) ?? exactly(value, ['seq', 'sha256']);
      const [seq, sha256] = [positive(it?.['seq'] ?? null), hex32(it?.['sha256'] ?? null)];
      const issuedAt = it && 'issuedAt' in it ? integer(it['issuedAt']!) : 0;
      if (!name(channel) || !seq || !sha256 || issuedAt === undefined) throw wrong;
      seen.#newest.set(channel, { seq, sha256, issuedAt });
    }
    return seen;
  }

  /** What is remembered, as a text to keep. */
  toFile(): string {
    return JSON.stringify({ schema: SEEN_SCHEMA, channels: Object.fromEntries(this.#newest) });
  }

  /** The newest release that was seen in a channel. */
  newest(channel: string): { seq: number; sha256: string } | undefined {
    const seen = this.#newest.get(channel);
    return seen && { seq: seen.seq, sha256: seen.sha256 };
  }

  /** Remembers a head that counts; older ones change nothing, and one of the same release that is dated in the future gives way. */
  see(head: TrustedHead, wallMs: number): void {
    demandTrusted(head, 'verifyHead');
    const { channel, seq, manifestSha256: sha256, issuedAt } = head.content;
    this.#keep(channel, { seq, sha256, issuedAt }, wallMs);
  }

  /** Remembers what was seen elsewhere too. Of each channel the newest stays. */
  merge(other: Seen, wallMs: number): void {
    for (const [channel, found] of other.#newest) this.#keep(channel, found, wallMs);
  }

  #keep(channel: string, found: Sight, wallMs: number): void {
    const seen = this.#newest.get(channel);
    const isLater = seen?.seq === found.seq && bindsFrom(seen, wallMs) < bindsFrom(found, wallMs);
    const isNewer = !seen || seen.seq < found.seq || isLater;
    if (isNewer) this.#newest.set(channel, found);
  }

  /**
   * Whether a release may be installed: it is what its head names, of the channel that was asked for, not older than what was
   * seen, not yanked, in date.
   *
   * @throws Refused `other_channel`, `other_app`, `rollback`, `equivocation`, `not_of_head`, `yanked`, `expired`
   */
  // Spec: GW-104
  admit(head: TrustedHead, manifest: TrustedManifest, wanted: Wanted, wallMs: number): void {
    demandTrusted(head, 'verifyHead');
    demandTrusted(manifest, 'verifyManifest');
    const [told, release] = [head.content, manifest.content];
    for (const found of [told.channel, release.channel]) {
      if (found !== wanted.channel) throw new Refused('other_channel', `it is of channel ${found}, and ${wanted.channel} was asked for`);
    }
    if (release.name !== wanted.name) {
      throw new Refused('other_app', `it is a release of ${release.name}, and ${wanted.name} was asked for`);
    }
    this.isNewest(head, wallMs);
    const isNewest = release.seq === told.seq && manifest.sha256 === told.manifestSha256;
    if (!isNewest && !(wanted.allowDowngrade && release.seq < told.seq)) {
      throw new Refused('not_of_head', 'the manifest is not the one that the head of the channel names');
    }
    // Versions below the minimum count as yanked.
    const isBelowMinimum = release.minimumVersion !== null && isBelow(release.version, release.minimumVersion);
    if ((told.yanked.includes(release.seq) || isBelowMinimum) && !wanted.allowDowngrade) {
      throw new Refused('yanked', `release ${release.seq} (${release.version}) was yanked`);
    }
    if (release.expiry !== null && wallMs >= release.expiry) throw new Refused('expired', `it expired at ${writeTime(release.expiry)}`);
  }

  /**
   * Whether nothing newer than a head was seen: no later release, no other one of its number, and no later head of the same but for one
   * that is dated in the future.
   *
   * @throws Refused `rollback`, `equivocation`
   */
  isNewest(head: TrustedHead, wallMs: number): void {
    demandTrusted(head, 'verifyHead');
    const { channel, seq, manifestSha256: found, issuedAt } = head.content;
    const seen = this.#newest.get(channel);
    if (!seen) return;
    if (seq < seen.seq) {
      const text = `release ${seq} of channel ${channel} is older than release ${seen.seq}, which was seen before`;
      throw new Refused('rollback', text);
    }
    if (seq === seen.seq && found !== seen.sha256) {
      throw new Refused(
        'equivocation',
        `there are two releases ${seq} of channel ${channel}, ${seen.sha256.slice(0, 16)}… and ${found.slice(0, 16)}…: the publisher, or whoever has its keys, shows different people different releases; report it`,
      );
    }
    // A head of before, of the same release, may say less of what was taken back.
    if (seq === seen.seq && issuedAt < bindsFrom(seen, wallMs)) {
      const text = `the head of channel ${channel} was signed at ${writeTime(issuedAt)}, and one of ${writeTime(seen.issuedAt)} was seen before`;
      throw new Refused('rollback', text);
    }
  }
}
