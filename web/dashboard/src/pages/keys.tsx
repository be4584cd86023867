/** The keys that sign versions and releases: which one signs, what older ones still count for, and how that came about. */
import { ask } from '../door/call.js';
import type { Identity, Keys, KeysPreview, KeyVersion, LedgerRow, Recent } from '../door/documents.js';
import { useFresh, useQuery } from '../door/query.js';
import { changes, requests, type KeysChange } from '../door/requests.js';
import { Act, Command, Empty, Failed, Loading, Section, State, Table, When, type Tone } from '../parts/basic.js';
import { Chart, type Series } from '../parts/chart.js';
import { perform, performed, question } from '../parts/dialog.js';
import { lines } from '../pure/counts.js';
import { count } from '../pure/format.js';
import { now } from '../state.js';

/** The page. */
export function KeysPage() {
  const { data, error } = useQuery<Keys>(requests.keys, ['keys']);
  return (
    <>
      <h1>Keys</h1>
      {error && error.code !== 'no_keys' && <Failed error={error} />}
      {!data && !error && <Loading />}
      {error?.code === 'no_keys' && (
        <Empty title="This node has no signing keys yet.">
          <p>They sign versions and releases. The first is made when something is signed, or now:</p>
          <Command text="sealtide keys new" />
          <p><Act needs="admin" look="main" onClick={() => void makeKey()}>Make them</Act></p>
        </Empty>
      )}
      {data && <Signing keys={data} />}
      <IdentityPart />
    </>
  );
}

function makeKey(): Promise<unknown> {
  return perform<{ version: string }>(changes.keys({ change: 'new', version: null }, null), ({ version }) => `${version} is made, and prepared to sign.`);
}

function Signing({ keys }: { keys: Keys }) {
  const number = (version: string): number => Number(version.slice(1));
  // A version that was rolled back from can sign again.
  const hasNext = keys.versions.some(({ version, state }) => number(version) > number(keys.active) && ['prepared', 'verify-only'].includes(state));
  const rotateOff = hasNext ? null : 'no higher version is there: make one first';
  const backOff = keys.previous === null ? 'there is none before it' : keys.forced ? 'it was forced: there is no way back' : null;
  return (
    <>
      <p class="lead"><State tone="ok" icon="keys">{keys.active} signs{keys.since && <>, since <When time={keys.since} /></>}.</State></p>
      <div class="actions wrap">
        <Act needs="admin" onClick={() => void makeKey()}>Make a new version</Act>
        <Act needs="admin" look="main" disabled={rotateOff} onClick={() => askKeys({ change: 'rotate', to: null }, keys)}>Rotate</Act>
        <Act needs="admin" look="danger" disabled={backOff} onClick={() => askKeys({ change: 'rollback' }, keys)}>Roll back</Act>
      </div>
      <Section title="Versions">
        <Table label="Versions of the keys" head={['Version', 'State', 'Counts until', 'From', 'Keys']}>
          {keys.versions.map((version) => (
            <tr key={version.version}>
              <td>{version.version}</td>
              <td><VersionState version={version} /></td>
              <td>{version.not_after ? <><When time={version.not_after} />{Date.parse(version.not_after) < now.value && <span class="dim"> (over)</span>}</> : <span class="dim">no end</span>}</td>
              <td class="dim">{version.source ?? '–'}</td>
              <td><div class="kids">{version.keys.map(({ alg, kid }) => <span key={kid}><span class="dim">{alg}</span> <code>{kid}</code></span>)}</div></td>
            </tr>
          ))}
        </Table>
      </Section>
      <Share />
      <Ledger />
    </>
  );
}

const STATES: Record<string, Tone> = { active: 'ok', prepared: 'off', 'verify-only': 'busy', expired: 'off', retired: 'off', compromised: 'bad', destroyed: 'off' };

function VersionState({ version }: { version: KeyVersion }) {
  const words: Record<string, string> = { active: 'signs', prepared: 'prepared', 'verify-only': 'verifies only, in its grace time' };
  return <State tone={STATES[version.state] ?? 'off'} icon={version.state === 'verify-only' ? 'seal' : STATES[version.state] ?? 'off'}>{words[version.state] ?? version.state}</State>;
}

/** Which version made how many signatures, over time. */
function Share() {
  const { data } = useQuery<Recent>(requests.recent, ['keys', 'releases']);
  const found = lines(data?.signatures ?? []);
  if (!found) return null;
  const line = (version: string, place: number): Series => ({ label: version, colour: place % 2 ? '--second' : '--accent', fill: true, unit: count });
  const [first, ...others] = found.names;
  const series: [Series, ...Series[]] = [line(first, 0), ...others.map((version, place) => line(version, place + 1))];
  return <Section title="Signatures by version"><Chart label="Signatures" data={found.table} series={series} /></Section>;
}

function Ledger() {
  const { data, error } = useQuery<{ records: LedgerRow[] }>(requests.ledger, ['keys']);
  return (
    <Section title="Ledger">
      <Failed error={error} />
      {data && (
        <Table label="Ledger of the keys" head={['#Epoch', 'When', 'What', 'Signs then', 'By', 'Why']}>
          {[...data.records].reverse().map((row) => (
            <tr key={row.epoch}>
              <td class="number">{row.epoch}</td><td><When time={row.time} /></td><td>{row.action}{row.auto && <span class="dim"> (by itself)</span>}</td>
              <td>{row.active}</td><td>{row.by}</td><td class="dim">{row.reason || '–'}</td>
            </tr>
          ))}
        </Table>
      )}
    </Section>
  );
}

function askKeys(change: KeysChange, keys: Keys): void {
  const isBack = change.change === 'rollback';
  question({
    title: isBack ? 'Roll back?' : 'Rotate?',
    does: isBack ? 'Roll back' : 'Rotate',
    danger: isBack,
    body: <Preview change={change} />,
    run: async () => {
      await performed<{ from: string; to: string }>(changes.keys(change, keys.active), ({ from, to }) => `${to} signs now, instead of ${from}.`);
    },
  });
}

function Preview({ change }: { change: KeysChange }) {
  const { data, error } = useFresh<KeysPreview>(change.change, [], () => ask<KeysPreview>(requests.keysPreview(change)));
  if (!data) return error ? <Failed error={error} /> : <Loading />;
  if (data.would_change === false) return <p>Nothing would change: {data.active} signs already.</p>;
  const words: Record<string, string> = { active: 'signs', 'verify-only': 'signs no more; what it signed still counts for its grace time', prepared: 'is prepared again', expired: 'counts no more' };
  return (
    <>
      <p>From now on {data.would_be} signs, instead of {data.active}.</p>
      <ul>{Object.entries(data.states ?? {}).map(([version, state]) => <li key={version}><b>{version}</b> {words[state] ?? `becomes ${state}`}</li>)}</ul>
      <p class="dim">{data.final ? 'There is no way back.' : 'This can be rolled back.'} Heads of release channels are signed anew.</p>
    </>
  );
}

/** Who this node is, and how much is left of the pools that its identity is proven with. */
function IdentityPart() {
  const { data, error } = useQuery<Identity>(requests.identity, ['keys', 'status']);
  if (!data) return error ? <Failed error={error} /> : null;
  const stones = [data.device, ...(data.owner ? [data.owner] : [])];
  return (
    <Section title="Identity">
      <p>{data.signing === 'ready' ? <State tone="ok" icon="seal">This node signs what it changes.</State> : <State tone="warn">{data.doubt ?? `Signing: ${data.signing}`}</State>}</p>
      <Table label="Identities" head={['Identity', 'State', '#Frames', 'Pools']}>
        {stones.map((stone) => (
          <tr key={stone.keystone}>
            <td title={stone.keystone}>{stone.class}</td>
            <td><State tone={stone.state === 'live' ? 'ok' : 'bad'}>{stone.state}</State></td>
            <td class="number">{stone.frames ?? stone.n + 1}</td>
            <td>{stone.pools?.map(({ id, size, bind, verbs }) => <div key={id}>{id}: {count(size)} proofs, {bind} for each signature <span class="dim">({verbs.join(', ') || 'no verbs'})</span></div>) ?? '–'}</td>
          </tr>
        ))}
      </Table>
      {!data.owner && <p class="dim">No owner stands above this device yet: it comes back when the machine is lost. On a terminal: <code>sealtide identity new</code></p>}
      <p>Do you still have the recovery words? This tries them on the machine itself; they are never typed into a browser:</p>
      <Command text="sealtide identity drill" />
    </Section>
  );
}
