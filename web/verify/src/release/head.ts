import { utf8 } from '../encoding/bytes.js';
import { canonicalJson } from '../encoding/canonical.js';
import { isObject, member, readObject, SIGNED_LIMITS, type Json } from '../encoding/json.js';
import { Refused } from '../refused.js';
import { readSignature, type Signature } from '../signature/pair.js';
import type { Bytes } from '../encoding/bytes.js';
import { address, hex32, integer, list, Members, name, positive, time, version } from './members.js';

/** Numbers of yanked releases in one head, at most. */
export const YANKED_MAX = 1024;
/** How long a head can hold, at most: 90 days, in ms. */
export const HEAD_MS_MAX = 90 * 86_400_000;

/** The head of a channel: which release is the newest. Times are ms since 1970. Spec: gateway §9.6. */
export interface ChannelHead {
  registry: string;
  channel: string;
  /** Number of the newest release. */
  seq: number;
  /** SHA-256 of the signed bytes of its manifest, hex. */
  manifestSha256: string;
  version: string;
  /** Epoch of the key ledger when the head was signed. */
  epoch: number;
  issuedAt: number;
  notAfter: number;
  /** Numbers of releases that nobody should install, ascending. */
  yanked: number[];
}

/** A head with what was signed; nothing of it is proven until a trust says so. */
export interface SignedHead {
  content: ChannelHead;
  bytes: Bytes;
  signatures: Signature[];
}

/**
 * Reads a head with its `signatures`, as documents hold it: a JSON text, or the value of one.
 *
 * @throws Refused `not_a_head`
 */
export function readHead(source: string | Json): SignedHead {
  const object = typeof source === 'string' ? readObject(source, SIGNED_LIMITS) : source;
  const wrong = (what: string): Refused => new Refused('not_a_head', `no channel head: ${what}`);
  if (!isObject(object)) throw wrong('its text');
  const { signatures: _, ...rest } = object;
  const signatures = list(member(object, 'signatures') ?? null, 2, readSignature);
  if (signatures?.length !== 2) throw wrong('signatures');
  const text = canonicalJson(rest);
  if (text === undefined) throw wrong('its text');
  const members = new Members(rest, 'not_a_head', 'no channel head');
  members.take('schema', (value) => (value === 'sealtide/head/1' ? value : undefined));
  const content: ChannelHead = {
    registry: members.take('registry', address),
    channel: members.take('channel', name),
    seq: members.take('seq', positive),
    manifestSha256: members.take('manifestSha256', hex32),
    version: members.take('version', version),
    epoch: members.take('epoch', positive),
    issuedAt: members.take('issuedAt', time),
    notAfter: members.take('notAfter', time),
    yanked: members.take('yanked', readYanked),
  };
  const holds = content.notAfter - content.issuedAt;
  if (holds < 0 || holds > HEAD_MS_MAX) throw members.refuse('notAfter');
  members.end();
  return { content, bytes: utf8(text), signatures };
}

function readYanked(value: Json): number[] | undefined {
  const numbers = list(value, YANKED_MAX, (item) => (integer(item) === 0 ? undefined : integer(item)));
  return numbers?.every((number, at) => at === 0 || numbers[at - 1]! < number) ? numbers : undefined;
}
