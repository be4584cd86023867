/** Versions that stand against each other: both, the merge, what they come from, and a button to keep one. */
import type { Conflict, ConflictVersion } from '../door/documents.js';
import { useQuery } from '../door/query.js';
import { changes, requests } from '../door/requests.js';
import { Act, Failed, Loading, Name, Section, State, When } from '../parts/basic.js';
import { DiffView } from '../parts/diff-view.js';
import { performed, question } from '../parts/dialog.js';
import { rowsOfTexts } from '../pure/diff.js';
import { hrefOf } from '../pure/route.js';
import { Trail } from './files.js';
import { conflictWords } from './overview.js';

interface Shown {
  path: string;
  versions: ConflictVersion[];
  base?: ConflictVersion | null;
}

/** The page. */
export function ConflictPage({ space, path }: { space: string; path: string }) {
  const topics = [`files:${space}`, 'conflicts'];
  const list = useQuery<{ conflicts: Conflict[] }>(requests.conflicts, topics);
  const { data, error } = useQuery<Shown>(requests.conflict(`${space}:${path}`), topics);
  const conflict = list.data?.conflicts.find((it) => it.space === space && it.path === path);
  const head = <><Trail space={space} path={path} file /><h1 class="cut" title={path}>{path.split('/').at(-1)}</h1></>;
  if (!data || !list.data) return <>{head}{error ? <Failed error={error} /> : <Loading />}</>;
  if (!conflict) {
    return <>{head}<p class="lead"><State tone="ok">Nothing stands against it any more.</State></p><p><a href={hrefOf({ page: 'file', space, path })}>Its versions</a></p></>;
  }
  const merged = data.versions.find(({ what }) => what === 'merged');
  const base = data.base ?? data.versions.find(({ what }) => what === 'before') ?? null;
  const sides = data.versions.filter((version) => version !== merged && version !== base);
  const keep = (version: ConflictVersion) => <Keep space={space} path={path} version={version} stands={data.versions[0]} />;
  return (
    <>
      {head}
      <p class="lead"><State tone="warn">{path} {conflictWords(conflict)}.</State></p>
      {conflict.alias && <p>Give one of the two another name, and both stay: <code>{conflict.alias}</code></p>}
      {sides.length === 2 && (
        <Section title="The two versions">
          <DiffView
            rows={rowsOfTexts(sides[0]!.text, sides[1]!.text)} before={made(sides[0]!)} after={made(sides[1]!)}
            heads={[<Head version={sides[0]!}>{keep(sides[0]!)}</Head>, <Head version={sides[1]!}>{keep(sides[1]!)}</Head>]}
          />
        </Section>
      )}
      {sides.length !== 2 && sides.map((version) => (
        <Section key={version.hash} title={version.what} actions={keep(version)}><Text version={version} /></Section>
      ))}
      {merged && <Section title="The merge, as it stands in the folder" actions={keep(merged)}><Text version={merged} /></Section>}
      {base && <Section title="What both come from" actions={keep(base)}><Text version={base} /></Section>}
    </>
  );
}

function made(version: ConflictVersion): string {
  return `version ${version.n}`;
}

function Head({ version, children }: { version: ConflictVersion; children: preact.ComponentChildren }) {
  return <div class="version-head"><span>@{version.n} by <Name id={version.by} name={version.by_name} />, <When time={version.time} /></span>{children}</div>;
}

function Text({ version }: { version: ConflictVersion }) {
  return (
    <>
      <p class="dim">@{version.n} {version.what === 'merged' ? 'by rule' : <>by <Name id={version.by} name={version.by_name} /></>}, <When time={version.time} /></p>
      <pre class="text" tabIndex={0} aria-label={`Text of version ${version.n}`}>{version.text}</pre>
    </>
  );
}

function Keep({ space, path, version, stands }: { space: string; path: string; version: ConflictVersion; stands: ConflictVersion | undefined }) {
  const askKeep = (): void => question({
    title: version.what === 'merged' ? `Keep the merge of ${path}?` : `Keep version ${version.n} of ${path}?`,
    does: 'Keep it',
    body: (
      <>
        <p>It becomes the newest version everywhere. The others stay in the history.</p>
        {stands && stands.text !== version.text
          ? <DiffView rows={rowsOfTexts(stands.text, version.text)} before="what is in the folder" after="what will be" />
          : <p class="dim">What is in the folder stays as it is.</p>}
      </>
    ),
    run: async () => {
      await performed(changes.resolve(`${space}:${path}`, `@${version.hash}`), `${path} is settled.`);
    },
  });
  const which = version.what === 'merged' ? 'the merge' : `version ${version.n}, ${version.what}`;
  return <Act look={version.what === 'merged' || version.what === 'before' ? 'plain' : 'main'} needs="bumper" label={`Keep this: ${which}`} onClick={askKeep}>Keep this</Act>;
}
