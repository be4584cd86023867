/**
 * What a node answers, as far as the page reads it. The names are those of `sealtide --json`; times are RFC 3339 texts.
 */
import type { Counted } from '../pure/counts.js';

/** What a caller may do, least first. */
export type Role = 'public' | 'reader' | 'bumper' | 'admin';

/** Who is signed in; `id` is null for nobody. */
export interface Session {
  id: string | null;
  role: Role;
  expiresIn?: number;
}

export interface SpacePeer {
  peer: string;
  name: string;
  role: string;
  connected: boolean;
  in_step: boolean;
  syncing: boolean;
  synced: string | null;
  error: string | null;
}

export interface Space {
  name: string;
  id: string;
  kind: string;
  role: string;
  items: number;
  bytes: number;
  files?: number;
  dir?: string;
  state?: string;
  phase?: string;
  paused?: boolean;
  failed?: string | null;
  conflicts?: number;
  skipped?: unknown;
  peers: SpacePeer[];
}

export interface Link {
  peer: string;
  name: string;
  path: string | null;
  remote?: string;
  suite?: string;
  rtt_ms?: number | null;
  age_s?: number;
  bytes_in?: number;
  bytes_out?: number;
  why_not_direct?: string | null;
  inspected?: boolean | null;
}

export interface Status {
  node: string;
  name: string;
  home: string;
  version: string;
  running: boolean;
  since: string;
  listen: string[];
  certificate_ends: string;
  gateway: string | null;
  spaces: Space[];
  links: Link[];
  relays: { url: string; up: boolean; why_not?: string | null }[];
}

export interface Peer {
  node: string;
  name: string;
  connected: boolean;
  revoked: boolean;
  last_seen: string | null;
  addresses: string[];
  spaces: { space: string; role: string; since: string }[];
}

export interface LogEntry {
  space: string;
  path: string;
  n: number;
  hash: string;
  time: string;
  what: string;
  live: boolean;
  tip: boolean;
  by: string | null;
  by_name: string | null;
  authorship: 'verified' | 'claimed' | 'merged';
  verified_name: string | null;
  parents: string[];
}

export interface Conflict {
  space: string;
  path: string | null;
  kind: string;
  alias?: string | null;
  versions: string[];
}

export interface ConflictVersion {
  what: string;
  n: number;
  hash: string;
  time: string;
  by: string;
  by_name?: string | null;
  in_folder: boolean;
  text: string;
}

export interface Hold {
  space: string;
  kind: 'change' | 'writer';
  since?: string;
  removed?: number;
  replaced?: number;
  total?: number;
  peers?: string[];
  frames?: number;
  decides?: boolean;
}

export interface FileEntry {
  name: string;
  kind: 'dir' | 'file' | 'link' | 'doc';
  files?: number;
  bytes?: number;
  time?: string;
  n?: number;
  by?: string;
  by_name?: string | null;
  conflict?: boolean;
}

export interface Files {
  space: string;
  under: string;
  total: number;
  entries: FileEntry[];
  more: boolean;
}

export interface Saga {
  space: string;
  peer: string;
  peer_name: string;
  began: string;
  ended?: string | null;
  state: 'running' | 'committed' | 'aborted';
  received?: number;
  sent?: number;
  bytes?: number;
  items?: [number, number];
  code?: string;
  text?: string;
  mode?: string;
}

export type Sample = [second: number, rttMs: number | null, inPerSecond: number, outPerSecond: number];

export interface Recent {
  sagas: Saga[];
  links: Record<string, { name: string; samples: Sample[]; switches: { time: string; path: string | null }[] }>;
  signatures?: Counted[];
}

/** A line of the audit, its members as in the file. */
export type AuditLine = Record<string, unknown> & { '[SEQ]': number };

export interface AuditLines {
  lines: AuditLine[];
  /** The last line that was looked at, whether it fits the filter or not. */
  reached: number | null;
  more: boolean;
}

export interface KeyVersion {
  version: string;
  state: string;
  source: string | null;
  not_after: string | null;
  keys: { alg: string; kid: string }[];
}

export interface Keys {
  active: string;
  previous: string | null;
  forced: boolean;
  epoch: number;
  since: string | null;
  ledger: string;
  last_signature: string | null;
  versions: KeyVersion[];
}

export interface LedgerRow {
  epoch: number;
  time: string | null;
  action: string;
  active: string;
  by: string;
  reason: string;
  auto: boolean;
}

export interface KeysPreview {
  change: string;
  final: boolean;
  active: string;
  would_change?: boolean;
  would_be?: string;
  states?: Record<string, string>;
}

export interface Channel {
  app: string;
  channel: string;
  version: string;
  seq: number;
  issued: string;
  fresh_until: string;
  fresh: boolean;
  yanked: number[];
  own: boolean;
  space: string;
}

export interface Releases {
  channels: Channel[];
  installed: { app?: string; channel?: string; version?: string; to?: string; dir?: string }[];
}

export interface ReleaseRow {
  channel: string;
  version: string;
  seq: number;
  key_version: string;
  created: string;
  expires: string | null;
  files: number;
  bytes: number;
  payload_bytes: number;
  yanked: boolean;
  manifest: string;
  verified: string | null;
  tier: string | null;
}

export interface Release {
  app: string;
  space: string;
  registry: string;
  trust: { epoch: number; forked: boolean } | null;
  releases: ReleaseRow[];
}

export interface Pool {
  id: string;
  size: number;
  bind: number;
  verbs: string[];
}

export interface Keystone {
  keystone: string;
  class: string;
  state: string;
  n: number;
  made?: string;
  evolved?: string;
  frames?: number;
  pools?: Pool[];
  delegations?: unknown[];
}

export interface Identity {
  node: string;
  signing: string;
  doubt: string | null;
  device: Keystone;
  owner: Keystone | null;
}

export interface Doctor {
  ok: boolean;
  culprit: string | null;
  findings: { check: string; result: string; text: string; do: string | null }[];
}
