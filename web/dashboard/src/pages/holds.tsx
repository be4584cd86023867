/** What waits for a person because it is too large, or comes of somebody who may not write any more. */
import type { Hold } from '../door/documents.js';
import { ask } from '../door/call.js';
import { useFresh } from '../door/query.js';
import { changes, requests } from '../door/requests.js';
import { Failed, Loading } from '../parts/basic.js';
import { performed, question } from '../parts/dialog.js';
import { counted } from '../pure/format.js';
import { signal } from '@preact/signals';

interface Shown {
  removed?: string[];
  replaced?: string[];
  versions?: { path: string; deleted: boolean; n: number }[];
}

const accepts = signal(true);
const SHOWN = 50;

/** Shows what is held and asks what to do with it. */
export function askHold(hold: Hold): void {
  accepts.value = true;
  question({
    title: `What waits in ${hold.space}`,
    does: 'Do it',
    danger: true,
    body: <Held hold={hold} />,
    run: async () => {
      const done = accepts.value ? 'Accepted.' : 'Rejected.';
      await performed(changes.decide(hold.space, accepts.value), done);
    },
  });
}

function Held({ hold }: { hold: Hold }) {
  const { data, error } = useFresh<Shown>(hold.space, [], () => ask<Shown>(requests.hold(hold.space)));
  if (!data) return error ? <Failed error={error} /> : <Loading />;
  const rows = [
    ...(data.removed ?? []).map((path) => `${path} would be removed`),
    ...(data.replaced ?? []).map((path) => `${path} would be replaced`),
    ...(data.versions ?? []).map(({ path, deleted, n }) => `${path}@${n}${deleted ? ' (deleted)' : ''}`),
  ];
  return (
    <>
      <ul class="plain scroll">{rows.slice(0, SHOWN).map((row) => <li key={row}>{row}</li>)}</ul>
      {rows.length > SHOWN && <p class="dim">and {counted(rows.length - SHOWN, 'other')}</p>}
      <fieldset>
        <legend>What to do</legend>
        <label><input type="radio" name="hold" checked={accepts.value} onChange={() => { accepts.value = true; }} /> Accept: make the change here</label>
        <label><input type="radio" name="hold" checked={!accepts.value} onChange={() => { accepts.value = false; }} /> Reject: keep what is here, and put it back elsewhere</label>
      </fieldset>
    </>
  );
}
