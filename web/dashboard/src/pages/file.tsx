/** One file: its versions with who made them, what changed between two of them, and the way back. */
import { useState } from 'preact/hooks';
import { at } from '../door/call.js';
import type { LogEntry } from '../door/documents.js';
import { useQuery } from '../door/query.js';
import { changes, requests } from '../door/requests.js';
import { Act, Empty, Failed, Loading, Name, Section, State, Table, When } from '../parts/basic.js';
import { DiffView } from '../parts/diff-view.js';
import { performed, question } from '../parts/dialog.js';
import { Icon } from '../parts/icon.js';
import { rowsOfUnified } from '../pure/diff.js';
import { hrefOf } from '../pure/route.js';
import { Trail } from './files.js';

const VERSIONS = 200;

interface Diff {
  old: string;
  new: string;
  equal: boolean;
  diff: string;
}

/** The page. */
export function FilePage({ space, path }: { space: string; path: string }) {
  const topics = [`files:${space}`, 'conflicts'];
  const { data, error } = useQuery<{ entries: LogEntry[] }>(requests.log(`${space}:${path}`, VERSIONS), topics);
  const [picked, setPicked] = useState<{ old: string; new: string } | null>(null);
  if (!data) return <><Trail space={space} path={path} file />{error ? <Failed error={error} /> : <Loading />}</>;
  const { entries } = data;
  const newest = entries[0];
  if (!newest) return <Empty title="This file has no versions." />;
  const isThere = (hash: string): boolean => entries.some((entry) => entry.hash === hash);
  const shown = picked && isThere(picked.new) && (!picked.old || isThere(picked.old)) ? picked : { old: entries[1]?.hash ?? '', new: newest.hash };
  const standing = entries.filter((entry) => entry.tip).length;
  return (
    <>
      <Trail space={space} path={path} file />
      <div class="title-row">
        <h1 class="cut" title={path}>{path.split('/').at(-1)}</h1>
        <div class="actions">
          {newest.live && <a class="act main" href={download(space, path)} download><Icon name="down" /> Download</a>}
        </div>
      </div>
      <Failed error={error} />
      {standing > 1 && <p class="note"><State tone="warn">Two versions stand against each other.</State> <a href={hrefOf({ page: 'conflict', space, path })}>Settle it</a></p>}
      <Section title="Versions">
        <Table label="Versions" head={['#Version', 'When', 'What', 'By', 'Do']}>
          {entries.map((entry) => (
            <tr key={entry.hash} aria-selected={entry.hash === shown.new}>
              <td class="number" title={entry.hash}>@{entry.n}</td>
              <td><When time={entry.time} /></td>
              <td>{entry.what}{entry.tip && <span class="dim"> · stands now</span>}</td>
              <td><Author entry={entry} /></td>
              <td class="actions">
                <Act look="quiet" label={`Changes of version ${entry.n}`} onClick={() => setPicked({ old: entry.parents[0] ?? '', new: entry.hash })}>Changes</Act>
                {entry.live && <a class="act quiet" href={download(space, path, entry.hash)} download aria-label={`Download version ${entry.n}`}>Download</a>}
                {entry.live && !entry.tip && <Act look="quiet" needs="bumper" label={`Restore version ${entry.n}`} onClick={() => askRestore(space, path, entry, newest)}>Restore</Act>}
              </td>
            </tr>
          ))}
        </Table>
      </Section>
      <Section
        title="Difference"
        actions={<>
          <Pick label="From" entries={entries} value={shown.old} empty="nothing" onPick={(old) => setPicked({ ...shown, old })} />
          <Pick label="To" entries={entries} value={shown.new} onPick={(it) => setPicked({ ...shown, new: it })} />
        </>}
      >
        <Difference space={space} path={path} old={shown.old} new={shown.new} topics={topics} />
      </Section>
    </>
  );
}

/** Who made a version, and whether a signature proves it. */
export function Author({ entry }: { entry: LogEntry }) {
  if (entry.authorship === 'merged') return <State tone="off" icon="sagas">merged by rule</State>;
  if (entry.authorship === 'verified') return <State tone="ok" icon="seal"><Name id={entry.by} name={entry.verified_name ?? entry.by_name} /><span class="visually-hidden"> (verified by its signature)</span></State>;
  return <State tone="off"><Name id={entry.by} name={entry.by_name} /> (claimed)</State>;
}

function Pick(props: { label: string; entries: LogEntry[]; value: string; empty?: string; onPick: (hash: string) => void }) {
  return (
    <label class="compact">
      {props.label}{' '}
      <select value={props.value} onChange={(event) => props.onPick(event.currentTarget.value)}>
        {props.empty && <option value="">{props.empty}</option>}
        {props.entries.map((entry) => <option key={entry.hash} value={entry.hash}>@{entry.n} {entry.hash.slice(0, 6)}</option>)}
      </select>
    </label>
  );
}

function Difference(props: { space: string; path: string; old: string; new: string; topics: string[] }) {
  const target = (hash: string): string => `${props.space}:${props.path}@${hash}`;
  const request = props.old ? requests.diff(target(props.old), target(props.new)) : requests.diff(target(props.new), null);
  const { data, error } = useQuery<Diff>(request, props.topics);
  if (!data) return error ? <Failed error={error} /> : <Loading />;
  if (data.equal) return <p class="dim">Their content is the same.</p>;
  return <DiffView rows={rowsOfUnified(data.diff)} before={data.old === '/dev/null' ? 'nothing' : data.old} after={data.new} />;
}

/** The address of the bytes of a version. */
export function download(space: string, path: string, hash: string | null = null): string {
  const query = new URLSearchParams({ space, path, ...(hash ? { version: `@${hash}` } : {}) });
  return at(`api/node/file?${query}`);
}

function askRestore(space: string, path: string, entry: LogEntry, newest: LogEntry): void {
  const target = `${space}:${path}@${entry.hash}`;
  question({
    title: `Restore version ${entry.n}?`,
    does: 'Restore it',
    body: (
      <>
        <p>{path} becomes what it was in version {entry.n}. What is there now stays in the history. In the file this changes:</p>
        <Difference space={space} path={path} old={newest.hash} new={entry.hash} topics={[]} />
      </>
    ),
    run: async () => {
      await performed(changes.restore(target), `Version ${entry.n} of ${path} stands again.`);
    },
  });
}
