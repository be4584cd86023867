/** Apps, their channels and versions; and whether a bundle is what its publisher made, worked out in this page. */
import { useState } from 'preact/hooks';
import { ask, at, fetched, SLOW_MS } from '../door/call.js';
import type { Channel, Release, ReleaseRow, Releases } from '../door/documents.js';
import { useFresh, useQuery } from '../door/query.js';
import { changes, requests } from '../door/requests.js';
import { Act, Command, Empty, Failed, Loading, Section, State, Table, When } from '../parts/basic.js';
import { Modal, perform, performed, question } from '../parts/dialog.js';
import { bytes, count, counted } from '../pure/format.js';
import { hrefOf } from '../pure/route.js';
import { VerifyPart } from './verify.js';

interface Entity {
  id: string;
  displayName: string;
  currentVersion: string;
}

const TOPICS = ['releases', 'keys'];

/** The page. `app` is the one that is looked at closely. */
export function ReleasesPage({ app }: { app: string }) {
  const { data, error } = useQuery<Releases>(requests.releases, TOPICS);
  if (!data) return error ? <Failed error={error} /> : <Loading />;
  const apps = [...new Set(data.channels.map((channel) => channel.app))];
  const chosen = apps.includes(app) ? app : apps[0];
  return (
    <>
      <h1>Releases</h1>
      <Failed error={error} />
      {apps.length ? (
        <Section title="Channels">
          <Table label="Channels" head={['App', 'Channel', 'Version', 'Head', 'Issued', 'Space']}>
            {data.channels.map((channel) => (
              <tr key={`${channel.app} ${channel.channel}`} aria-selected={channel.app === chosen}>
                <td><a href={hrefOf({ page: 'releases', app: channel.app })} aria-current={channel.app === chosen ? 'true' : undefined}>{channel.app}</a></td>
                <td>{channel.channel}</td>
                <td>{channel.version} <span class="dim">#{channel.seq}</span></td>
                <td>{channel.fresh ? <State tone="ok">fresh</State> : <State tone="warn">stale</State>} <span class="dim">until <When time={channel.fresh_until} /></span></td>
                <td><When time={channel.issued} /></td>
                <td>{channel.space}{channel.own && <span class="dim"> (published here)</span>}</td>
              </tr>
            ))}
          </Table>
        </Section>
      ) : (
        <Empty title="No release is here yet.">
          <p>Ship a directory as the first one of an app:</p>
          <Command text="sealtide release publish APP DIR --version 1.0.0" />
        </Empty>
      )}
      {chosen && <AppPart key={chosen} app={chosen} channels={data.channels.filter((channel) => channel.app === chosen)} />}
      {data.installed.length > 0 && (
        <Section title="Installed on this machine">
          <ul class="plain">{data.installed.map((it, place) => <li key={place}>{it.app} {it.version} <span class="dim">{it.channel} in {it.to ?? it.dir}</span></li>)}</ul>
        </Section>
      )}
      <Versions />
    </>
  );
}

function AppPart({ app, channels }: { app: string; channels: Channel[] }) {
  const { data, error } = useQuery<Release>(requests.release(app), TOPICS);
  const [verified, setVerified] = useState<ReleaseRow | null>(null);
  const [promoted, setPromoted] = useState<ReleaseRow | null>(null);
  const isOwn = channels.some(({ own }) => own);
  const elsewhere = isOwn ? null : 'its publisher is another node';
  if (!data) return error ? <Failed error={error} /> : <Loading />;
  const rows = [...data.releases].sort((a, b) => a.channel.localeCompare(b.channel) || b.seq - a.seq);
  return (
    <Section title={app} actions={<Act needs="admin" onClick={() => askArchive(app, rows)}>Archive old bundles</Act>}>
      <Table label={`Releases of ${app}`} head={['Version', 'Channel', 'Made', 'Signed by', '#Files', '#Size', 'Tier', 'State', 'Do']}>
        {rows.map((row) => (
          <tr key={`${row.channel} ${row.seq}`}>
            <td>{row.version} <span class="dim">#{row.seq}</span></td>
            <td>{row.channel}</td>
            <td><When time={row.created} /></td>
            <td>{row.key_version}</td>
            <td class="number">{count(row.files)}</td>
            <td class="number">{bytes(row.bytes)}</td>
            <td class="dim">{row.tier?.toLowerCase() ?? 'not here'}</td>
            <td>{row.yanked ? <State tone="bad">yanked</State> : <State tone="off" icon="releases">out</State>}</td>
            <td class="actions">
              <Act look="quiet" label={`Verify ${row.version} of ${row.channel}`} disabled={row.tier ? null : 'its bundle is not on this node'} onClick={() => setVerified(row)}>Verify</Act>
              <Act look="quiet" needs="admin" label={`Promote ${row.version} of ${row.channel}`} disabled={elsewhere ?? (row.yanked ? 'it is yanked' : null)} onClick={() => setPromoted(row)}>Promote</Act>
              <Act look="quiet" needs="admin" label={`Yank ${row.version} of ${row.channel}`} disabled={elsewhere ?? (row.yanked ? 'it is yanked' : null)} onClick={() => askYank(app, row)}>Yank</Act>
            </td>
          </tr>
        ))}
      </Table>
      {verified && <VerifyPart key={`${verified.channel} ${verified.seq}`} app={app} row={verified} onClose={() => setVerified(null)} />}
      {promoted && <Promote app={app} row={promoted} onClose={() => setPromoted(null)} />}
    </Section>
  );
}

function Promote({ app, row, onClose }: { app: string; row: ReleaseRow; onClose: () => void }) {
  const send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const to = String(new FormData(event.target as HTMLFormElement).get('to')).trim();
    if (await perform(changes.promote(app, row.version, row.channel, to), `${row.version} is in ${to} now.`)) onClose();
  };
  return (
    <Modal title={`Promote ${app} ${row.version}?`} onClose={onClose}>
      <form class="dialog-body" onSubmit={(event) => void send(event)}>
        <p>The same files, signed anew for another channel. Who follows that channel gets them.</p>
        <label>From {row.channel} into<input name="to" pattern="[a-z0-9][a-z0-9._\-]{0,63}" defaultValue={row.channel === 'beta' ? 'stable' : ''} required /></label>
        <div class="dialog-foot"><Act onClick={onClose}>Leave it</Act><button type="submit" class="act main">Promote</button></div>
      </form>
    </Modal>
  );
}

function askYank(app: string, row: ReleaseRow): void {
  question({
    title: `Yank ${app} ${row.version}?`,
    does: 'Yank it',
    danger: true,
    body: <p>The channel {row.channel} says from now on that nobody may install {row.version}. Where it is installed it stays until another one comes. A yank is not taken back; a newer release goes on.</p>,
    run: async () => {
      await performed(changes.yank(app, row.version, row.channel), `${row.version} is yanked from ${row.channel}.`);
    },
  });
}

const ARCHIVE_DAYS = 30;

function askArchive(app: string, rows: ReleaseRow[]): void {
  const before = Date.now() - ARCHIVE_DAYS * 86_400_000;
  const due = rows.filter((row) => row.tier && !/cold|archive|glacier/i.test(row.tier) && Date.parse(row.created) < before);
  question({
    title: `Archive old bundles of ${app}?`,
    does: 'Archive them',
    body: (
      <>
        <p>Bundles of {ARCHIVE_DAYS} days and older move to the cold tier. They can still be fetched and verified.</p>
        {due.length ? <ul>{due.map((row) => <li key={`${row.channel} ${row.seq}`}>{row.version} of {row.channel}, {bytes(row.payload_bytes)}</li>)}</ul> : <p class="dim">None is that old.</p>}
      </>
    ),
    run: async () => {
      await performed<{ moved: number }>(changes.archive(app, ARCHIVE_DAYS * 86_400), ({ moved }) => `${counted(moved, 'bundle')} moved.`);
    },
  });
}

/** The registry of versions, and the raising of one. */
function Versions() {
  const { data, error } = useFresh<{ entities: Entity[] }>('registry', TOPICS, async () => (await fetched(at('version/registry'))).json());
  if (!data) return error && error.status !== 404 && error.status !== 503 ? <Failed error={error} /> : null;
  if (!data.entities.length) return null;
  return (
    <Section title="Versions that are raised here">
      <Table label="Registry of versions" head={['Name', 'Id', 'Version', 'Raise']}>
        {data.entities.map((entity) => (
          <tr key={entity.id}>
            <td>{entity.displayName}</td><td><code>{entity.id}</code></td><td>{entity.currentVersion}</td>
            <td class="actions">
              {['patch', 'minor', 'major'].map((scope) => <Act key={scope} look="quiet" needs="bumper" label={`${scope} of ${entity.displayName}`} onClick={() => askBump(entity, scope)}>{scope}</Act>)}
            </td>
          </tr>
        ))}
      </Table>
    </Section>
  );
}

interface Bumped {
  changes: { entity: string; name: string; from: string; to: string }[];
}

function askBump(entity: Entity, scope: string): void {
  question({
    title: `Raise ${entity.displayName} (${scope})?`,
    does: 'Raise it',
    body: <BumpPreview entity={entity} scope={scope} />,
    run: async () => {
      await performed<Bumped>(changes.bump(entity.id, scope, false), ({ changes: [first] }) => `${first?.name ?? entity.displayName} is ${first?.to ?? 'raised'} now.`);
    },
  });
}

function BumpPreview({ entity, scope }: { entity: Entity; scope: string }) {
  const { data, error } = useFresh<Bumped>(`${entity.id} ${scope}`, [], () => ask<Bumped>(changes.bump(entity.id, scope, true), SLOW_MS));
  if (!data) return error ? <Failed error={error} /> : <Loading />;
  return <><p>This is signed and told to everybody who listens:</p><ul>{data.changes.map((it) => <li key={it.entity}>{it.name}: {it.from} → <b>{it.to}</b></li>)}</ul></>;
}
