/** The tree of a space, a directory at a time. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ask, type Refusal } from '../door/call.js';
import type { FileEntry, Files, Status } from '../door/documents.js';
import { hear } from '../door/live.js';
import { concerns, useQuery, useTurns } from '../door/query.js';
import { FILES_PAGE, requests } from '../door/requests.js';
import { Act, Command, Empty, Failed, Loading, Name, State, When } from '../parts/basic.js';
import { Icon } from '../parts/icon.js';
import { Rows } from '../parts/rows.js';
import { bytes, count, counted } from '../pure/format.js';
import { hrefOf } from '../pure/route.js';
import { PeersOf, SpaceState } from './overview.js';

const ROW = 36;
/** Pages that are fetched again when something changed; a longer list is fetched again when asked for. */
const PAGES_AGAIN = 20;

/** The page. */
export function FilesPage({ space, under }: { space: string; under: string }) {
  const status = useQuery<Status>(requests.status, ['status', 'sagas']);
  if (!status.data) return status.error ? <Failed error={status.error} /> : <Loading />;
  const spaces = status.data.spaces.filter(({ kind }) => kind !== 'app');
  const chosen = spaces.find(({ name }) => name === space) ?? (space === '' ? spaces[0] : undefined);
  if (!spaces.length) {
    return <><h1>Files</h1><Empty title="No space is here yet."><Command text="sealtide up DIR" /></Empty></>;
  }
  if (!chosen) return <><h1>Files</h1><Empty title={`There is no space ${space} here.`}><a href={hrefOf({ page: 'files', space: '', under: '' })}>Show the spaces</a></Empty></>;
  return (
    <>
      <h1 class="visually-hidden">Files</h1>
      <div class="files-head">
        <label class="compact">
          Space{' '}
          <select value={chosen.name} onChange={(event) => { location.hash = hrefOf({ page: 'files', space: event.currentTarget.value, under: '' }); }}>
            {spaces.map(({ id, name }) => <option key={id}>{name}</option>)}
          </select>
        </label>
        <SpaceState space={chosen} />
        <PeersOf space={chosen} />
      </div>
      <Trail space={chosen.name} path={under} />
      <Directory key={`${chosen.name}/${under}`} space={chosen.name} under={under} />
    </>
  );
}

/** Where in the tree this is; every step is a link. */
export function Trail({ space, path, file = false }: { space: string; path: string; file?: boolean }) {
  const names = path.split('/').filter(Boolean);
  return (
    <nav class="trail" aria-label="Path">
      <ol>
        <li><a href={hrefOf({ page: 'files', space, under: '' })} aria-current={names.length ? undefined : 'page'}>{space}</a></li>
        {names.map((name, at) => {
          const isLast = at === names.length - 1;
          const under = names.slice(0, at + 1).join('/');
          return <li key={under}>{isLast && file ? <span aria-current="page">{name}</span> : <a href={hrefOf({ page: 'files', space, under })} aria-current={isLast ? 'page' : undefined}>{name}</a>}</li>;
        })}
      </ol>
    </nav>
  );
}

interface Listed {
  entries: FileEntry[];
  total: number;
  more: boolean;
}

function Directory({ space, under }: { space: string; under: string }) {
  const [listed, setListed] = useState<Listed | null>(null);
  const [error, setError] = useState<Refusal | null>(null);
  const [filter, setFilter] = useState('');
  const [isOld, setOld] = useState(false);
  const known = useRef({ pages: 1, entries: [] as FileEntry[], more: true });
  // The next page, or everything that is shown from the start.
  const turns = useTurns(async (turn, list) => {
    const state = known.current;
    if (turn === 'next' && !state.more) return;
    let entries = turn === 'fresh' ? [] : state.entries;
    const pages = turn === 'fresh' ? state.pages : 1;
    let page: Files = { space, under, total: 0, entries: [], more: true };
    for (let done = 0; done < pages && page.more; done += 1) {
      page = await ask<Files>(requests.files(space, under, entries.at(-1)?.name ?? null));
      entries = [...entries, ...page.entries];
    }
    Object.assign(state, { entries, more: page.more, pages: Math.max(1, Math.ceil(entries.length / FILES_PAGE)) });
    if (list.isOver) return;
    setListed({ entries, total: page.total, more: page.more });
    if (turn === 'fresh') setOld(false);
  }, 'fresh', setError);
  useEffect(() => hear((changed) => {
    if (!concerns(changed, [`files:${space}`, 'conflicts'])) return;
    if (known.current.pages > PAGES_AGAIN) setOld(true);
    else void turns.take('fresh');
  }), [listed]);

  const shown = useMemo(() => {
    const wanted = filter.toLowerCase();
    return (listed?.entries ?? []).filter(({ name }) => name.toLowerCase().includes(wanted));
  }, [listed, filter]);
  if (!listed) return error ? <Failed error={error} /> : <Loading />;
  return (
    <>
      <div class="files-tools">
        <label class="compact">Filter <input type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} /></label>
        <span class="dim" role="status">
          {filter ? `${count(shown.length)} of ${counted(listed.entries.length, 'loaded entry', 'loaded entries')}` : counted(listed.total, 'entry', 'entries')}
        </span>
        {isOld && <Act look="quiet" onClick={() => void turns.take('fresh')}>Something changed: fetch again</Act>}
      </div>
      <Failed error={error} />
      {shown.length ? (
        <>
          <div class="entry entry-head" aria-hidden="true"><span>Name</span><span class="number">Size</span><span class="number">Version</span><span>Changed</span><span>By</span></div>
          <Rows
            label={`Entries of ${under || space}`} rows={shown.length} height={ROW}
            onEnd={() => { if (listed.more && !filter) void turns.take('next'); }}
            render={(row) => <Entry space={space} under={under} entry={shown[row]!} />}
          />
        </>
      ) : filter ? <p class="dim">Nothing that is loaded has this in its name.</p> : <Empty title="This directory is empty." />}
    </>
  );
}

function Entry({ space, under, entry }: { space: string; under: string; entry: FileEntry }) {
  const path = under ? `${under}/${entry.name}` : entry.name;
  if (entry.kind === 'dir') {
    return (
      <div class="entry">
        <a href={hrefOf({ page: 'files', space, under: path })}><Icon name="dir" /> <span class="cut">{entry.name}</span></a>
        <span class="number dim">{counted(entry.files ?? 0, 'file')}</span>
      </div>
    );
  }
  return (
    <div class="entry">
      <span class="entry-name">
        <a href={hrefOf({ page: entry.conflict ? 'conflict' : 'file', space, path })} title={entry.name}><Icon name={entry.kind} /> <span class="cut">{entry.name}</span></a>
        {entry.conflict && <State tone="warn">conflict</State>}
      </span>
      <span class="number">{entry.bytes === undefined ? '' : bytes(entry.bytes)}</span>
      <span class="number dim">{entry.n === undefined ? '' : `@${entry.n}`}</span>
      <span class="dim">{entry.time && <When time={entry.time} />}</span>
      <span class="dim cut">{entry.by && <Name id={entry.by} name={entry.by_name} />}</span>
    </div>
  );
}
