/** Runs of the sync protocol: those under way with their progress, and the last ones with what came of them. */
import type { Recent, Saga } from '../door/documents.js';
import { useQuery } from '../door/query.js';
import { changes, requests } from '../door/requests.js';
import { Act, Command, Empty, Failed, Loading, Name, Section, State, Table, When } from '../parts/basic.js';
import { perform } from '../parts/dialog.js';
import { bytes, count, span } from '../pure/format.js';
import { now } from '../state.js';
import { syncNow } from './overview.js';

/** The page. */
export function SagasPage() {
  const { data, error } = useQuery<Recent>(requests.recent, ['sagas']);
  if (!data) return error ? <Failed error={error} /> : <Loading />;
  const running = data.sagas.filter(({ state }) => state === 'running');
  const ended = data.sagas.filter(({ state }) => state !== 'running');
  return (
    <>
      <div class="title-row"><h1>Sagas</h1><div class="actions"><Act needs="bumper" onClick={() => void syncNow([])}>Sync everything now</Act></div></div>
      <p class="dim">A saga makes two nodes agree about a space. All of it becomes visible, or nothing.</p>
      <Failed error={error} />
      <Section title="Running">
        {running.length ? <ul class="plain">{running.map((saga) => <Running key={keyOf(saga)} saga={saga} />)}</ul> : <p class="dim">None right now.</p>}
      </Section>
      <Section title="Recent">
        {ended.length ? (
          <Table label="Recent sagas" head={['Began', 'Space', 'With', 'Outcome', 'Mode', '#Received', '#Sent', '#Size', '#Took', 'Do']}>
            {ended.map((saga) => (
              <tr key={keyOf(saga)}>
                <td><When time={saga.began} /></td>
                <td>{saga.space}</td>
                <td><Name id={saga.peer} name={saga.peer_name} /></td>
                <td><Outcome saga={saga} /></td>
                <td>{saga.mode ?? '–'}</td>
                <td class="number">{saga.received === undefined ? '–' : count(saga.received)}</td>
                <td class="number">{saga.sent === undefined ? '–' : count(saga.sent)}</td>
                <td class="number">{saga.bytes === undefined ? '–' : bytes(saga.bytes)}</td>
                <td class="number">{saga.ended ? span(Date.parse(saga.ended) - Date.parse(saga.began)) : '–'}</td>
                <td class="actions">{saga.state === 'aborted' && <Act look="quiet" needs="bumper" label={`Try again: ${saga.space} with ${saga.peer_name}`} onClick={() => void syncNow([saga.space], saga.peer)}>Try again</Act>}</td>
              </tr>
            ))}
          </Table>
        ) : <Empty title="None yet since this node runs."><p>One begins by itself when something changes and another node is connected.</p><Command text="sealtide sync" /></Empty>}
      </Section>
    </>
  );
}

function keyOf(saga: Saga): string {
  return `${saga.began} ${saga.space} ${saga.peer}`;
}

/** Ends that the next run makes good by itself. */
const PASSING = new Set(['busy', 'tip_moved', 'interrupted', 'timeout', 'cancelled']);

function Outcome({ saga }: { saga: Saga }) {
  if (saga.state === 'committed') return <State tone="ok">committed</State>;
  return <><State tone={PASSING.has(saga.code ?? '') ? 'off' : 'bad'}>{saga.code?.replaceAll('_', ' ') ?? 'aborted'}</State>{saga.text && <span class="dim"> {saga.text}</span>}</>;
}

function Running({ saga }: { saga: Saga }) {
  const [done, all] = saga.items ?? [0, 0];
  return (
    <li class="running">
      <State tone="busy">{saga.space} with <Name id={saga.peer} name={saga.peer_name} /></State>
      {all > 0 && <progress value={done} max={all} aria-label={`Progress of ${saga.space} with ${saga.peer_name}`} />}
      <span class="dim">{all > 0 && `${count(done)} of ${count(all)} records, `}{saga.bytes !== undefined && `${bytes(saga.bytes)}, `}{span(Math.max(0, now.value - Date.parse(saga.began)))}</span>
      <Act look="quiet" needs="bumper" label={`Cancel ${saga.space}`} onClick={() => void perform(changes.cancel(saga.space), `The sync of ${saga.space} is cancelled.`)}>Cancel</Act>
    </li>
  );
}
