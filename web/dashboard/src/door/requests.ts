/** The requests of a node that the page makes, as its API reads them: every member is there, options as null. */
export const requests = {
  status: { command: 'status' },
  peers: { command: 'peers_list' },
  conflicts: { command: 'conflicts_list', space: null },
  holds: { command: 'hold_list' },
  tickets: { command: 'ticket_list' },
  recent: { command: 'recent' },
  keys: { command: 'keys', keys: 'status' },
  ledger: { command: 'keys', keys: 'ledger', since: 0 },
  releases: { command: 'release', release: 'list' },
  identity: { command: 'identity_show', keystone: null },
  auditVerify: { command: 'audit_verify' },

  files: (space: string, under: string, after: string | null) => ({ command: 'files', space, under, after, limit: FILES_PAGE }),
  log: (target: string | null, limit: number) => ({ command: 'log', target, limit }),
  get: (target: string) => ({ command: 'get', target }),
  diff: (a: string, b: string | null) => ({ command: 'diff', a, b }),
  conflict: (target: string) => ({ command: 'conflicts_show', target }),
  hold: (space: string) => ({ command: 'hold_show', space }),
  release: (app: string, version: string | null = null) => ({ command: 'release', release: 'show', app, channel: null, version }),
  doctor: (target: string | null) => ({ command: 'doctor', target }),
  keysPreview: (change: KeysChange) => ({ command: 'keys', keys: 'change', change, expect: null, reason: '', dry_run: true }),
  auditLines: (from: { before?: number; since?: number }, filter: AuditFilter, limit: number) => ({
    command: 'audit_lines',
    before: from.before ?? null,
    since: from.since ?? null,
    limit,
    filter: { event: filter.event || null, channel: filter.channel || null, thread: filter.thread || null, peer: filter.peer || null },
  }),
};

/** What changes something; each costs a one-time token. */
export const changes = {
  sync: (spaces: string[], peer: string | null = null) => ({
    command: 'sync', spaces, with: peer, strategy: 'optimistic', wait: false, timeout_s: 60, dry_run: false, cancel: null,
  }),
  cancel: (space: string) => ({
    command: 'sync', spaces: [], with: null, strategy: 'optimistic', wait: false, timeout_s: 60, dry_run: false, cancel: space,
  }),
  pause: (space: string | null) => ({ command: 'pause', space }),
  resume: (space: string | null) => ({ command: 'resume', space }),
  restore: (target: string) => ({ command: 'restore', target, to: null }),
  resolve: (target: string, keep: string | null) => ({ command: 'conflicts_resolve', target, keep }),
  decide: (space: string, accept: boolean) => ({ command: 'hold_decide', space, accept }),
  ticket: (space: string, role: string, ttlSeconds: number, uses: number) => ({ command: 'ticket_new', space, role, ttl_s: ttlSeconds, uses }),
  revokeTicket: (id: string) => ({ command: 'ticket_revoke', id }),
  rename: (peer: string, name: string) => ({ command: 'peers_rename', peer, name }),
  revoke: (peer: string) => ({ command: 'peers_revoke', peer }),
  keys: (change: KeysChange, expect: string | null) => ({
    command: 'keys', keys: 'change', change, expect, reason: 'dashboard', dry_run: false,
  }),
  bump: (entity: string, scope: string, dryRun: boolean) => ({
    command: 'keys', keys: 'bump', request: { scope, entityId: entity, dryRun }, expect: null, tree: null,
  }),
  promote: (app: string, version: string, from: string, to: string) => ({
    command: 'release', release: 'promote', app, version, from, to, allow_downgrade: false,
  }),
  yank: (app: string, version: string, channel: string) => ({ command: 'release', release: 'yank', app, version, channel }),
  archive: (app: string, olderSeconds: number) => ({ command: 'release', release: 'archive', app, older_s: olderSeconds }),
};

/** Entries of a directory in one answer. */
export const FILES_PAGE = 500;

/** A change of the signing keys. */
export type KeysChange = { change: 'rotate'; to: null } | { change: 'rollback' } | { change: 'new'; version: null };

/** What audit lines are wanted; an empty text wants all. */
export interface AuditFilter {
  event: string;
  channel: string;
  thread: string;
  peer: string;
}

/** Anything the node can be asked. */
export type NodeRequest = { command: string } & Record<string, unknown>;
