import { sha256 } from '@noble/hashes/sha2.js';
import { compare, copied, utf8, type Bytes } from '../encoding/bytes.js';
import { hex } from '../encoding/hex.js';
import { member, type Json } from '../encoding/json.js';
import { INTEGER_MAX } from '../encoding/time.js';
import type { Signature } from '../signature/pair.js';
import {
  address, byteLength, exactly, hex32, integer, keyVersion, list, Members, name, positive, readSignedBytes, string, time, version,
} from './members.js';

/** Files of one release, at most. */
export const FILES_MAX = 100_000;

/** One file of a release. */
export interface ReleaseFile {
  /** Relative, `/` between names. */
  path: string;
  /** BLAKE3-256 of its bytes, hex. */
  hash: string;
  /** Bytes. */
  size: number;
  /** Whether it may be run. */
  executable: boolean;
}

/** A release, as its manifest says. Times are ms since 1970. Spec: gateway §9.1. */
export interface Manifest {
  registry: string;
  name: string;
  version: string;
  channel: string;
  /** Its number in the channel, from 1. */
  seq: number;
  /** SHA-256 of the signed bytes of the manifest before it, hex; none at 1. */
  prev: string | null;
  minimumVersion: string | null;
  /** Number of the key version that signs. */
  keyVersion: number;
  createdAt: number;
  expiry: number | null;
  archiveDate: number | null;
  /** BLAKE3-256 of the payload, hex. */
  hash: string;
  /** Bytes of the payload. */
  size: number;
  /** Bytes of all files. */
  unpackedSize: number;
  /** Sorted by the bytes of their paths. */
  files: ReleaseFile[];
  registryRevision: number;
  signedAt: number;
}

/** A manifest with what was signed; nothing of it is proven until a trust says so. */
export interface SignedManifest {
  content: Manifest;
  /** The bytes that were signed. */
  bytes: Bytes;
  /** Their SHA-256, hex: the name by which heads and other manifests call it. */
  sha256: string;
  signatures: Signature[];
}

/**
 * Reads the signed bytes of a manifest: RFC 8785 form, every member known, a list of files that can be unpacked into one
 * directory. Spec: gateway §9.1.
 *
 * @throws Refused `not_a_bundle`
 */
// Spec: GW-72, GW-77
export function readManifest(given: Uint8Array, signatures: Signature[]): SignedManifest {
  const bytes = copied(given);
  const members = new Members(readSignedBytes(bytes, 'not_a_bundle', 'no release manifest'), 'not_a_bundle', 'no release manifest');
  members.take('manifestVersion', (value) => (value === 1 ? 1 : undefined));
  const content: Manifest = {
    registry: members.take('registry', address),
    name: members.take('name', name),
    version: members.take('version', version),
    channel: members.take('channel', name),
    seq: members.take('seq', positive),
    prev: members.optional('prev', hex32),
    minimumVersion: members.optional('minimumVersion', version),
    keyVersion: members.take('keyVersion', keyVersion),
    createdAt: members.take('createdAt', time),
    expiry: members.optional('expiry', time),
    archiveDate: members.optional('archiveDate', time),
    hash: members.take('hash', hex32),
    size: members.take('size', integer),
    unpackedSize: members.take('unpackedSize', integer),
    files: members.take('files', (value) => list(value, FILES_MAX, readFile)),
    registryRevision: members.take('registryRevision', integer),
    signedAt: members.take('signedAt', time),
  };
  if ((content.prev !== null) !== content.seq > 1) throw members.refuse('prev');
  if (!areGoodFiles(content.files)) throw members.refuse('files');
  if (content.files.reduce((sum, file) => sum + file.size, 0) !== content.unpackedSize) throw members.refuse('unpackedSize');
  members.end();
  return { content, bytes, sha256: hex(sha256(bytes)), signatures };
}

function readFile(value: Json): ReleaseFile | undefined {
  const object = exactly(value, ['path', 'hash', 'size', 'mode']);
  if (!object) return undefined;
  const [path, hash, size] = [string(object['path']!), hex32(object['hash']!), integer(object['size']!)];
  const mode = member(object, 'mode');
  if (path === undefined || hash === undefined || size === undefined || (mode !== '0644' && mode !== '0755')) return undefined;
  return { path, hash, size, executable: mode === '0755' };
}

/** Whether a list can be unpacked into one directory without a path leaving it or meeting another. */
// Spec: GW-77
export function areGoodFiles(files: readonly ReleaseFile[]): boolean {
  if (files.reduce((sum, file) => sum + file.size, 0) > INTEGER_MAX) return false;
  const paths = new Set(files.map((file) => file.path));
  let before: Bytes | undefined;
  for (const { path } of files) {
    const bytes = utf8(path);
    if (!isGoodPath(path) || (before && compare(before, bytes) >= 0)) return false;
    for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
      if (paths.has(path.slice(0, slash))) return false;
    }
    before = bytes;
  }
  return true;
}

/** Plain names with `/` between them: no `.` or `..`, nothing empty, no control characters, no `\`. */
function isGoodPath(path: string): boolean {
  if (byteLength(path) > 1024 || /[\u0000-\u001f\u007f-\u009f\\]/.test(path)) return false;
  return path.split('/').every((part) => part !== '' && part !== '.' && part !== '..' && byteLength(part) <= 255);
}
