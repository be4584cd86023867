/** The frame of the page: who is signed in, where to go, whether the live line stands, what was just done. */
import { useEffect } from 'preact/hooks';
import type { JSX } from 'preact';
import logo from './assets/logo.svg';
import { session, signIn, signOut, whenSignedOut } from './door/call.js';
import type { Status } from './door/documents.js';
import * as live from './door/live.js';
import { asRefusal, useQuery } from './door/query.js';
import { requests } from './door/requests.js';
import { Act, State } from './parts/basic.js';
import { Questions } from './parts/dialog.js';
import { Icon, type IconName } from './parts/icon.js';
import { Toasts } from './parts/toasts.js';
import { AuditPage } from './pages/audit.js';
import { ConflictPage } from './pages/conflict.js';
import { FilePage } from './pages/file.js';
import { FilesPage } from './pages/files.js';
import { KeysPage } from './pages/keys.js';
import { LinksPage } from './pages/links.js';
import { OverviewPage } from './pages/overview.js';
import { ReleasesPage } from './pages/releases.js';
import { SagasPage } from './pages/sagas.js';
import { SignInPage } from './pages/sign-in.js';
import { codeOf, hrefOf, type Route } from './pure/route.js';
import { names, role, route, signInNote, who } from './state.js';

const PLACES: { name: string; icon: IconName; to: Route; pages: Route['page'][] }[] = [
  { name: 'Overview', icon: 'overview', to: { page: 'overview' }, pages: ['overview'] },
  { name: 'Files', icon: 'dir', to: { page: 'files', space: '', under: '' }, pages: ['files', 'file', 'conflict'] },
  { name: 'Links', icon: 'links', to: { page: 'links', peer: '' }, pages: ['links'] },
  { name: 'Sagas', icon: 'sagas', to: { page: 'sagas' }, pages: ['sagas'] },
  { name: 'Releases', icon: 'releases', to: { page: 'releases', app: '' }, pages: ['releases'] },
  { name: 'Keys', icon: 'keys', to: { page: 'keys' }, pages: ['keys'] },
  { name: 'Audit', icon: 'audit', to: { page: 'audit', seq: null }, pages: ['audit'] },
];

/** The whole page. */
export function App() {
  useEffect(() => void begin(), []);
  const is = who.value;
  if (!is) return <p class="dim loading" role="status">Asking the node…</p>;
  if (!is.id) return <SignInPage />;
  return <Shell />;
}

/** Takes a code out of the address and signs in with it, or asks who is signed in. */
async function begin(): Promise<void> {
  whenSignedOut(() => {
    if (who.value?.id) end('Your sign-in is over.');
  });
  addEventListener('hashchange', () => void byCode());
  if (await byCode()) return;
  try {
    who.value = await session();
  } catch (error) {
    signInNote.value = asRefusal(error).message;
    who.value = { id: null, role: 'public' };
  }
}

async function byCode(): Promise<boolean> {
  const code = codeOf(location.hash);
  if (!code) return false;
  // A code must not stay in the address, where it would be seen and kept.
  history.replaceState(null, '', hrefOf(route.value));
  try {
    who.value = await signIn({ code });
    signInNote.value = null;
  } catch (error) {
    const refusal = asRefusal(error);
    const used = 'That link was used already, or it is older than five minutes. A link signs in once.';
    signInNote.value = refusal.status === 401 ? used : refusal.message;
    who.value = await session().catch(() => ({ id: null, role: 'public' as const }));
  }
  return true;
}

function end(note: string | null): void {
  live.close();
  signInNote.value = note;
  who.value = { id: null, role: 'public' };
}

function Shell() {
  useEffect(() => {
    live.open();
    return live.close;
  }, []);
  const at = route.value;
  const place = PLACES.find(({ pages }) => pages.includes(at.page))!;
  useEffect(() => {
    document.title = `${place.name} · Sealtide`;
  }, [place.name]);
  useEffect(() => {
    if (live.line.value === 'over') end('Your sign-in is over.');
  }, [live.line.value]);
  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to the content</a>
      <header class="side">
        <a class="brand" href={hrefOf({ page: 'overview' })}>
          <img src={logo} alt="" width="26" height="26" />
          <span>Sealtide</span>
        </a>
        <nav aria-label="Pages">
          <ul>
            {PLACES.map((it) => (
              <li key={it.name}>
                <a href={hrefOf(it.to)} aria-current={it === place ? 'page' : undefined}>
                  <Icon name={it.icon} />
                  <span>{it.name}</span>
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <Who />
      </header>
      <Line />
      <main id="main" tabIndex={-1}>{pageOf(at)}</main>
      <Toasts />
      <Questions />
    </div>
  );
}

function pageOf(at: Route): JSX.Element {
  switch (at.page) {
    case 'overview':
      return <OverviewPage />;
    case 'files':
      return <FilesPage key={`${at.space}/${at.under}`} space={at.space} under={at.under} />;
    case 'file':
      return <FilePage key={`${at.space}/${at.path}`} space={at.space} path={at.path} />;
    case 'conflict':
      return <ConflictPage key={`${at.space}/${at.path}`} space={at.space} path={at.path} />;
    case 'links':
      return <LinksPage peer={at.peer} />;
    case 'sagas':
      return <SagasPage />;
    case 'releases':
      return <ReleasesPage app={at.app} />;
    case 'keys':
      return <KeysPage />;
    case 'audit':
      return <AuditPage seq={at.seq} />;
  }
}

/** Which node this is, and as whom it is seen. */
function Who() {
  const { data } = useQuery<Status>(requests.status, ['status']);
  useEffect(() => {
    if (!data) return;
    const known = data.spaces.flatMap(({ peers }) => peers.map(({ peer, name }): [string, string] => [peer, name]));
    names.value = new Map([[data.node, 'this node'], ...data.links.map(({ peer, name }): [string, string] => [peer, name]), ...known]);
  }, [data]);
  const leave = async (): Promise<void> => {
    await signOut().catch(() => undefined);
    end('You are signed out.');
  };
  return (
    <div class="who">
      <span class="who-node" title={data?.node}>{data?.name ?? '…'}</span>
      <span class="dim">signed in as {role.value}</span>
      <Act look="quiet" onClick={() => void leave()}>Sign out</Act>
    </div>
  );
}

/** Whether what is shown is live. It speaks up when the line is cut, and when it is back. */
function Line() {
  const state = live.line.value;
  return (
    <div class={`line ${state}`} role="status" aria-live="polite" data-line={state}>
      {state === 'live' && <State tone="ok">{live.cuts.value ? 'Live again; everything shown was fetched anew' : 'Live'}</State>}
      {state === 'connecting' && <State tone="busy">Connecting…</State>}
      {state === 'cut' && (
        <>
          <State tone="warn">The node cannot be reached. What you see may be old; it comes back by itself.</State>
          <Act look="quiet" onClick={live.tryNow}>Try now</Act>
        </>
      )}
    </div>
  );
}

