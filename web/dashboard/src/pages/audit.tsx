/** What this node did: the chain of its audit, live, with filters, checked and exported. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { at, ask, SLOW_MS, type Refusal } from '../door/call.js';
import type { AuditLine, AuditLines } from '../door/documents.js';
import { hear } from '../door/live.js';
import { asRefusal, concerns, useTurns } from '../door/query.js';
import { requests, type AuditFilter } from '../door/requests.js';
import { Act, Empty, Failed, Loading, State, When } from '../parts/basic.js';
import { Modal } from '../parts/dialog.js';
import { Icon } from '../parts/icon.js';
import { Rows } from '../parts/rows.js';
import { count, counted } from '../pure/format.js';
import { Lines } from '../pure/lines.js';
import { hrefOf } from '../pure/route.js';
import { lacks } from '../state.js';

const ROW = 34;
const PAGE = 200;
const NONE: AuditFilter = { event: '', channel: '', thread: '', peer: '' };

interface Verified {
  ok: boolean;
  lines: number;
  checkpoints: number;
  not_yet_signed: number;
}

/** The page. `seq` is a line that a link led to. */
export function AuditPage({ seq }: { seq: number | null }) {
  const [filter, setFilter] = useState<AuditFilter>(NONE);
  const [chain, setChain] = useState<Verified | Refusal | 'asking' | null>(null);
  const verify = async (): Promise<void> => {
    setChain('asking');
    setChain(await ask<Verified>(requests.auditVerify, SLOW_MS).catch(asRefusal));
  };
  useEffect(() => void verify(), []);
  return (
    <>
      <div class="title-row">
        <h1>Audit</h1>
        <div class="actions">
          <Act onClick={() => void verify()} busy={chain === 'asking'}>Verify</Act>
          {lacks('admin')
            ? <Act onClick={() => undefined} needs="admin"><Icon name="down" /> Export</Act>
            : <a class="act plain" href={at('api/node/audit')} download="audit.jsonl"><Icon name="down" /> Export</a>}
        </div>
      </div>
      <Chain chain={chain} />
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        {(['event', 'channel', 'thread', 'peer'] as const).map((name) => (
          <label key={name}>{FIELDS[name]}<input value={filter[name]} onChange={(event) => setFilter({ ...filter, [name]: event.currentTarget.value.trim() })} list={name === 'channel' ? 'channels' : undefined} /></label>
        ))}
        <datalist id="channels"><option value="COMMAND_CHANNEL" /><option value="CHANNEL_NOTIFY" /></datalist>
        {Object.values(filter).some(Boolean) && <Act look="quiet" onClick={() => setFilter({ ...NONE })}>Show all</Act>}
      </form>
      {seq !== null && <p class="note">From line {count(seq)} back. <a href={hrefOf({ page: 'audit', seq: null })}>Show the newest</a></p>}
      <Listed key={JSON.stringify([filter, seq])} filter={filter} seq={seq} />
    </>
  );
}

const FIELDS: Record<keyof AuditFilter, string> = { event: 'Event begins with', channel: 'Channel', thread: 'Thread', peer: 'Peer' };

function Chain({ chain }: { chain: Verified | Refusal | 'asking' | null }) {
  if (chain === null || chain === 'asking') return <p role="status"><State tone="busy">Checking the chain…</State></p>;
  if (chain instanceof Error) return <Failed error={chain} />;
  return (
    <p class="lead" role="status">
      {chain.ok
        ? <State tone="ok" icon="seal">The chain is whole: {counted(chain.lines, 'line')}, {counted(chain.checkpoints, 'signed checkpoint')}{chain.not_yet_signed > 0 && `, ${counted(chain.not_yet_signed, 'line')} not signed yet`}.</State>
        : <State tone="bad">The chain does not hold.</State>}
    </p>
  );
}

function Listed({ filter, seq }: { filter: AuditFilter; seq: number | null }) {
  const [lines, setLines] = useState<readonly AuditLine[] | null>(null);
  const [error, setError] = useState<Refusal | null>(null);
  const [open, setOpen] = useState<AuditLine | null>(null);
  const loaded = useRef<Lines<AuditLine> | null>(null);
  const known = (loaded.current ??= new Lines(seq, (from) => ask<AuditLines>(requests.auditLines(from, filter, PAGE)), (line) => line['[SEQ]']));
  const turns = useTurns((turn, list) => {
    const isOver = (): boolean => list.isOver;
    return known[turn](isOver, () => { if (!isOver()) setLines(known.rows); });
  }, 'next', setError);
  useEffect(() => hear((changed) => {
    if (seq === null && concerns(changed, ['audit'])) void turns.take('fresh');
  }), []);

  if (!lines) return error ? <Failed error={error} /> : <Loading />;
  if (!lines.length) return <><Failed error={error} /><Empty title="No line fits." /></>;
  return (
    <>
      <Failed error={error} />
      <div class="audit-row entry-head" aria-hidden="true"><span class="number">Line</span><span>When</span><span>Event</span><span>About</span></div>
      <Rows label="Lines of the audit" rows={lines.length} height={ROW} onEnd={() => { if (known.more) void turns.take('next'); }} render={(row) => <Line line={lines[row]!} marked={lines[row]!['[SEQ]'] === seq} onOpen={setOpen} />} />
      {open && (
        <Modal title={`Line ${open['[SEQ]']}`} onClose={() => setOpen(null)} wide>
          <div class="dialog-body"><pre class="text" tabIndex={0} aria-label="The whole line">{JSON.stringify(open, null, 2)}</pre></div>
          <div class="dialog-foot"><Act look="main" onClick={() => setOpen(null)}>Close</Act></div>
        </Modal>
      )}
    </>
  );
}

const HEAD = new Set(['hsl', 'subscription']);

function Line({ line, marked, onOpen }: { line: AuditLine; marked: boolean; onOpen: (line: AuditLine) => void }) {
  const about = Object.entries(line).filter(([name]) => !name.startsWith('[') && !HEAD.has(name));
  const text = about.map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`).join(', ');
  const time = line['[TIMESTAMP]'];
  return (
    <div class={`audit-row${marked ? ' marked' : ''}`} aria-current={marked ? 'true' : undefined}>
      <span class="number"><button type="button" class="act quiet" aria-label={`Line ${line['[SEQ]']}, whole`} onClick={() => onOpen(line)}>{line['[SEQ]']}</button></span>
      <span class="dim"><When time={typeof time === 'number' ? time : null} /></span>
      <span class="cut" title={`${String(line['[CHANNEL]'] ?? '')} ${String(line['[THREAD_GROUP]'] ?? '')}`}>{String(line['[TES_EVENT]'] ?? '')}</span>
      <span class="dim cut" title={text}>{text}</span>
    </div>
  );
}
