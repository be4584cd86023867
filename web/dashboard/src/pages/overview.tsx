/** The first page: what is in step with whom, and what needs a person, before anything else. */
import type { Conflict, Hold, Keys, Link, LogEntry, Space, Status } from '../door/documents.js';
import { useQuery } from '../door/query.js';
import { changes, requests } from '../door/requests.js';
import { Act, Command, Empty, Failed, Loading, Name, Section, State, Table, When } from '../parts/basic.js';
import { perform } from '../parts/dialog.js';
import { bytes, count, counted, span, suite } from '../pure/format.js';
import { hrefOf } from '../pure/route.js';
import { needs, statements } from '../pure/sentence.js';
import { now } from '../state.js';
import { askHold } from './holds.js';
import { TicketButton } from './ticket.js';
import { PathState } from './links.js';
import { Author } from './file.js';

const CHANGES = 12;

/** The page. */
export function OverviewPage() {
  const status = useQuery<Status>(requests.status, ['status', 'sagas', 'links', 'conflicts']);
  const conflicts = useQuery<{ conflicts: Conflict[] }>(requests.conflicts, ['conflicts', 'files:']);
  const holds = useQuery<{ holds: Hold[] }>(requests.holds, ['status', 'conflicts', 'files:']);
  const log = useQuery<{ entries: LogEntry[] }>(requests.log(null, CHANGES), ['files:']);
  if (!status.data) return status.error ? <Failed error={status.error} /> : <Loading />;
  const node = status.data;
  const shared = node.spaces.filter((space) => space.kind !== 'app');
  return (
    <>
      <h1 class="visually-hidden">Overview</h1>
      <Failed error={status.error} />
      <Sentence spaces={shared} conflicts={conflicts.data?.conflicts ?? []} holds={holds.data?.holds ?? []} />
      <Spaces spaces={shared} />
      <div class="columns">
        <Section title="Last changes">
          <Failed error={log.error} />
          {log.data && (log.data.entries.length ? <Changes entries={log.data.entries} /> : <p class="dim">No file was changed yet.</p>)}
        </Section>
        <div>
          <Peers links={node.links} />
          <KeysLeft />
          <ThisNode node={node} />
        </div>
      </div>
    </>
  );
}

/** Asks the node to bring spaces in step now. */
export function syncNow(spaces: string[], peer: string | null = null): Promise<unknown> {
  return perform(changes.sync(spaces, peer), 'Synced.');
}

function Sentence({ spaces, conflicts, holds }: { spaces: Space[]; conflicts: Conflict[]; holds: Hold[] }) {
  const need = needs(conflicts.length, holds.length);
  const facts = spaces.map((space) => ({
    name: space.name,
    paused: space.paused === true,
    peers: space.peers.map((peer) => ({ name: peer.name, connected: peer.connected, inStep: peer.in_step })),
  }));
  return (
    <section class="sentence" aria-label="How it stands">
      {need && (
        <div class="needs">
          <p><State tone="warn">{need}</State></p>
          <ul>
            {conflicts.map((conflict) => (
              <li key={`${conflict.space}:${conflict.path}`}>
                <a href={hrefOf({ page: 'conflict', space: conflict.space, path: conflict.path ?? '' })}>{conflict.space}: {conflict.path}</a>
                <span class="dim"> {conflictWords(conflict)}</span>
              </li>
            ))}
            {holds.map((hold) => (
              <li key={`${hold.space}:hold`}>
                {hold.space}: {hold.kind === 'writer' ? counted(hold.frames ?? 0, 'version') + ' of a writer who was removed' : `${counted((hold.removed ?? 0) + (hold.replaced ?? 0), 'file')} of ${count(hold.total ?? 0)} would change`}{' '}
                <Act look="quiet" needs="admin" onClick={() => askHold(hold)}>Decide</Act>
              </li>
            ))}
          </ul>
        </div>
      )}
      {statements(facts).map(({ tone, text }) => <p class="lead" key={text}><State tone={tone}>{text}</State></p>)}
      {!spaces.length && (
        <Empty title="Nothing is shared yet.">
          <p>Share a directory of this machine, or take a space of another one:</p>
          <Command text="sealtide up DIR" />
          <Command text="sealtide join TICKET DIR" />
        </Empty>
      )}
    </section>
  );
}

/** Why a person is asked. */
export function conflictWords(conflict: Conflict): string {
  switch (conflict.kind) {
    case 'merged':
      return 'was merged, and both sides changed the same place';
    case 'diverged':
      return 'has versions that cannot be merged';
    default:
      return conflict.alias ? `two files of one name; the other is ${conflict.alias}` : conflict.kind;
  }
}

function Spaces({ spaces }: { spaces: Space[] }) {
  if (!spaces.length) return null;
  return (
    <Section title="Spaces" actions={<TicketButton spaces={spaces} />}>
      <Table label="Spaces" head={['Space', 'State', '#Files', '#Size', 'With', 'Do']}>
        {spaces.map((space) => (
          <tr key={space.id}>
            <td><a href={hrefOf({ page: 'files', space: space.name, under: '' })}>{space.name}</a></td>
            <td><SpaceState space={space} /></td>
            <td class="number">{space.files === undefined ? '–' : count(space.files)}</td>
            <td class="number">{bytes(space.bytes)}</td>
            <td><PeersOf space={space} /></td>
            <td class="actions">
              <Act look="quiet" needs="bumper" label={`Sync now: ${space.name}`} disabled={space.peers.some((peer) => peer.connected) ? null : 'nobody is connected'} onClick={() => void syncNow([space.name])}>Sync now</Act>
              {space.paused
                ? <Act look="quiet" needs="bumper" label={`Resume ${space.name}`} onClick={() => void perform(changes.resume(space.name), `${space.name} goes on.`)}>Resume</Act>
                : <Act look="quiet" needs="bumper" label={`Pause ${space.name}`} onClick={() => void perform(changes.pause(space.name), `${space.name} is paused.`)}>Pause</Act>}
            </td>
          </tr>
        ))}
      </Table>
    </Section>
  );
}

/** How a space stands. */
export function SpaceState({ space }: { space: Space }) {
  if (space.failed) return <State tone="bad">{space.failed}</State>;
  if (space.paused) return <State tone="off" icon="pause">paused</State>;
  switch (space.state) {
    case 'in_step':
      return <State tone="ok">in step</State>;
    case 'conflict':
    case 'conflicts':
    case 'held':
      return <State tone="warn">{space.state === 'held' ? 'held' : 'conflict'}</State>;
    case 'offline':
    case 'alone':
    case undefined:
      return <State tone="off">{space.state ?? 'idle'}</State>;
    default:
      return <State tone="busy">{space.state.replaceAll('_', ' ')}</State>;
  }
}

/** Each peer of a space and how it stands there. */
export function PeersOf({ space }: { space: Space }) {
  if (!space.peers.length) return <span class="dim">nobody yet</span>;
  return (
    <ul class="inline">
      {space.peers.map((peer) => (
        <li key={peer.peer} title={peer.error ?? undefined}>
          <State tone={peer.error ? 'bad' : !peer.connected ? 'off' : peer.in_step ? 'ok' : 'busy'}>
            <Name id={peer.peer} name={peer.name} /> <span class="dim">{peer.error ? 'failed' : !peer.connected ? 'away' : peer.in_step ? 'in step' : 'syncing'}</span>
          </State>
        </li>
      ))}
    </ul>
  );
}

function Changes({ entries }: { entries: LogEntry[] }) {
  return (
    <ul class="changes">
      {entries.map((entry) => (
        <li key={`${entry.space}:${entry.hash}`}>
          <a href={hrefOf({ page: 'file', space: entry.space, path: entry.path })}>{entry.path}</a>
          <span class="dim"> {entry.what} in {entry.space}{entry.authorship === 'merged' ? ' by rule' : <> by <Author entry={entry} /></>}</span>
          <span class="dim end"><When time={entry.time} /></span>
        </li>
      ))}
    </ul>
  );
}

function Peers({ links }: { links: Link[] }) {
  const connected = links.filter(({ path }) => path !== null);
  return (
    <Section title="Connected">
      {connected.length ? (
        <ul class="plain">
          {connected.map((link) => (
            <li key={link.peer}>
              <a href={hrefOf({ page: 'links', peer: link.peer })}><Name id={link.peer} name={link.name} /></a>{' '}
              <PathState path={link.path} inspected={link.inspected} />{' '}
              <span class="dim">{suite(link.suite)}{typeof link.rtt_ms === 'number' ? `, ${link.rtt_ms} ms` : ''}</span>
            </li>
          ))}
        </ul>
      ) : <p class="dim">No other node is connected. A ticket invites one.</p>}
    </Section>
  );
}

function KeysLeft() {
  const { data, error } = useQuery<Keys>(requests.keys, ['keys']);
  if (!data) return error && error.code !== 'no_keys' ? <Failed error={error} /> : null;
  return (
    <Section title="Signing keys">
      <ul class="plain">
        {data.versions.filter(({ state }) => state !== 'destroyed').map((version) => (
          <li key={version.version}>
            <a href={hrefOf({ page: 'keys' })}>{version.version}</a> <span class="dim">{version.state === 'active' ? 'signs' : version.state === 'verify-only' ? 'verifies only' : version.state}{left(version.not_after)}</span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function left(notAfter: string | null): string {
  if (!notAfter) return '';
  const gap = Date.parse(notAfter) - now.value;
  return gap > 0 ? `, counts for ${span(gap)} more` : ', is over';
}

function ThisNode({ node }: { node: Status }) {
  return (
    <Section title="This node">
      <dl class="facts">
        <dt>Name</dt><dd>{node.name}</dd>
        <dt>Id</dt><dd><code class="cut" title={node.node}>{node.node}</code></dd>
        <dt>Version</dt><dd>{node.version}</dd>
        <dt>Running since</dt><dd><When time={node.since} /></dd>
        <dt>Listens on</dt><dd>{node.listen.join(', ') || 'nothing'}</dd>
        <dt>Link certificate</dt><dd>ends <When time={node.certificate_ends} />; a new one comes before</dd>
        {node.relays.map((relay) => <><dt>Relay</dt><dd><State tone={relay.up ? 'ok' : 'bad'}>{relay.url}{relay.why_not && `: ${relay.why_not}`}</State></dd></>)}
      </dl>
    </Section>
  );
}
