/** The other nodes: how each is reached and why so, how fast, since when; names, rights, and what is wrong. */
import { useState } from 'preact/hooks';
import { ask, SLOW_MS } from '../door/call.js';
import type { Doctor, Link, Peer, Recent, Status } from '../door/documents.js';
import { useFresh, useQuery } from '../door/query.js';
import { changes, requests } from '../door/requests.js';
import { Act, Command, Empty, Failed, Hint, Loading, Name, Section, State, Table, When, type Tone } from '../parts/basic.js';
import { Chart } from '../parts/chart.js';
import { Modal, perform, performed, question } from '../parts/dialog.js';
import { bytes, suite } from '../pure/format.js';
import { hrefOf } from '../pure/route.js';
import { lacks } from '../state.js';
import { TicketButton } from './ticket.js';

interface TicketRow {
  id: string;
  space: string;
  role: string;
  expires: string;
  uses_left: number;
  state: string;
}

/** The page. `peer` is the one that is looked at closely. */
export function LinksPage({ peer }: { peer: string }) {
  const peers = useQuery<{ peers: Peer[] }>(requests.peers, ['links', 'status']);
  const status = useQuery<Status>(requests.status, ['links', 'status']);
  const recent = useQuery<Recent>(requests.recent, ['links']);
  if (!peers.data || !status.data) return peers.error || status.error ? <Failed error={peers.error ?? status.error} /> : <Loading />;
  const { links, spaces } = status.data;
  const all = peers.data.peers;
  const chosen = all.find(({ node }) => node === peer) ?? all.find(({ connected }) => connected) ?? all[0];
  return (
    <>
      <div class="title-row"><h1>Links</h1><div class="actions"><TicketButton spaces={spaces} /></div></div>
      <Failed error={peers.error} />
      {!all.length && (
        <Empty title="No other node is known yet.">
          <p>A ticket invites one. On the other machine:</p>
          <Command text="sealtide join TICKET DIR" />
        </Empty>
      )}
      {all.length > 0 && (
        <Table label="Nodes" head={['Node', 'State', 'Path', '#Round trip', 'Protected by', '#In', '#Out', 'Spaces']}>
          {all.map((it) => {
            const link = links.find((link) => link.peer === it.node);
            return (
              <tr key={it.node} aria-selected={it === chosen}>
                <td><a href={hrefOf({ page: 'links', peer: it.node })} aria-current={it === chosen ? 'true' : undefined}><Name id={it.node} name={it.name} /></a></td>
                <td><Standing peer={it} /></td>
                <td>{link ? <PathState path={link.path} inspected={link.inspected} /> : <span class="dim">–</span>}</td>
                <td class="number">{typeof link?.rtt_ms === 'number' ? `${link.rtt_ms} ms` : '–'}</td>
                <td class="dim">{suite(link?.suite) || '–'}</td>
                <td class="number">{link?.bytes_in === undefined ? '–' : bytes(link.bytes_in)}</td>
                <td class="number">{link?.bytes_out === undefined ? '–' : bytes(link.bytes_out)}</td>
                <td>{it.spaces.map(({ space, role }) => `${space} (${role})`).join(', ') || '–'}</td>
              </tr>
            );
          })}
        </Table>
      )}
      {chosen && <Close key={chosen.node} peer={chosen} link={links.find((link) => link.peer === chosen.node)} recent={recent.data} />}
      <Tickets />
    </>
  );
}

function Standing({ peer }: { peer: Peer }) {
  if (peer.revoked) return <State tone="bad">revoked</State>;
  if (peer.connected) return <State tone="ok">connected</State>;
  return <State tone="off">{peer.last_seen ? <>away, seen <When time={peer.last_seen} /></> : 'never seen'}</State>;
}

/** By which way a link runs, and whether somebody reads along. */
export function PathState({ path, inspected }: { path: string | null; inspected?: boolean | null | undefined }) {
  if (inspected) return <State tone="bad">inspected: somebody opens its TLS</State>;
  const words: Record<string, string> = { direct: 'direct', relay: 'through a relay', tunnel: 'through a web server' };
  return <State tone={path ? 'ok' : 'off'} icon="links">{path ? (words[path] ?? path) : 'no path'}</State>;
}

function Close({ peer, link, recent }: { peer: Peer; link: Link | undefined; recent: Recent | null }) {
  const [doctor, setDoctor] = useState(false);
  const [renaming, setRenaming] = useState(false);
  const seen = recent?.links[peer.node];
  const samples = seen?.samples ?? [];
  const times = samples.map(([second]) => second);
  return (
    <Section
      title={peer.name}
      actions={<>
        <Act needs="admin" onClick={() => setRenaming(true)}>Rename</Act>
        <Act onClick={() => setDoctor(true)}>What is wrong?</Act>
        <Act look="danger" needs="admin" disabled={peer.revoked ? 'it is revoked' : null} onClick={() => askRevoke(peer)}>Revoke</Act>
      </>}
    >
      <p class="dim cut"><code title={peer.node}>{peer.node}</code></p>
      {link?.why_not_direct && <p>{link.path ? 'Not direct' : 'Not reached'}: {link.why_not_direct.replaceAll('_', ' ')}</p>}
      {samples.length > 1 ? (
        <div class="columns even">
          <Chart label="Round trip" data={[times, samples.map(([, rtt]) => rtt)]} series={[{ label: 'Round trip', colour: '--accent', unit: milliseconds }]} />
          <Chart
            label="Throughput" data={[times, samples.map(([, , into]) => into), samples.map(([, , , out]) => out)]}
            series={[{ label: 'in', colour: '--accent', fill: true, unit: perSecond }, { label: 'out', colour: '--second', unit: perSecond }]}
          />
        </div>
      ) : <p class="dim">Nothing was measured since this node runs.</p>}
      {seen && seen.switches.length > 0 && (
        <>
          <h3>Path switches</h3>
          <ul class="plain">
            {seen.switches.slice(-8).reverse().map(({ time, path }) => <li key={time}><PathState path={path} /> <span class="dim"><When time={time} /></span></li>)}
          </ul>
        </>
      )}
      {doctor && <DoctorDialog peer={peer} onClose={() => setDoctor(false)} />}
      {renaming && <Rename peer={peer} onClose={() => setRenaming(false)} />}
    </Section>
  );
}

function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function perSecond(value: number): string {
  return `${bytes(value)}/s`;
}

function Rename({ peer, onClose }: { peer: Peer; onClose: () => void }) {
  const save = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const name = String(new FormData(event.target as HTMLFormElement).get('name')).trim();
    if (await perform(changes.rename(peer.node, name), `${peer.name} is called ${name} now.`)) onClose();
  };
  return (
    <Modal title={`Another name for ${peer.name}`} onClose={onClose}>
      <form class="dialog-body" onSubmit={(event) => void save(event)}>
        <label>Name on this node<input name="name" defaultValue={peer.name} maxLength={64} required /></label>
        <div class="dialog-foot"><Act onClick={onClose}>Leave it</Act><button type="submit" class="act main">Rename</button></div>
      </form>
    </Modal>
  );
}

const RESULTS: Record<string, Tone> = { ok: 'ok', warn: 'warn', fail: 'bad', bad: 'bad', error: 'bad', skip: 'off' };

function DoctorDialog({ peer, onClose }: { peer: Peer; onClose: () => void }) {
  const { data, error } = useFresh<Doctor>(peer.node, [], () => ask<Doctor>(requests.doctor(peer.node), SLOW_MS));
  return (
    <Modal title={`On the way to ${peer.name}`} onClose={onClose} wide>
      <div class="dialog-body">
        <Failed error={error} />
        {!data && !error && <Loading />}
        {data && (
          <>
            <p class="lead"><State tone={data.ok ? 'ok' : 'bad'}>{data.ok ? 'Nothing is in the way.' : `Something is in the way${data.culprit ? `: ${data.culprit}` : ''}.`}</State></p>
            <ul class="plain">
              {data.findings.map((finding, place) => (
                <li key={place}><State tone={RESULTS[finding.result] ?? 'off'}><b>{finding.check}</b> {finding.text}</State>{finding.do && <p class="dim"><Hint text={finding.do} /></p>}</li>
              ))}
            </ul>
          </>
        )}
        <div class="dialog-foot"><Act look="main" onClick={onClose}>Close</Act></div>
      </div>
    </Modal>
  );
}

function askRevoke(peer: Peer): void {
  question({
    title: `Revoke ${peer.name}?`,
    does: 'Revoke it',
    danger: true,
    body: (
      <>
        <p>It is cut off at once and cannot come back with the same key. What it wrote stays; what it has, it keeps.</p>
        {peer.spaces.length > 0 ? (
          <>
            <p>It loses:</p>
            <ul>{peer.spaces.map(({ space, role }) => <li key={space}>{space}, where it may {role}</li>)}</ul>
          </>
        ) : <p class="dim">It has no space of this node.</p>}
        <p>Open tickets that it used are void too.</p>
      </>
    ),
    run: async () => {
      await performed(changes.revoke(peer.node), `${peer.name} is revoked.`);
    },
  });
}

function Tickets() {
  const { data, again } = useQuery<{ tickets: TicketRow[] }>(lacks('admin') ? null : requests.tickets, ['status', 'links', 'audit']);
  const open = data?.tickets.filter(({ state }) => state === 'open' || state === 'live' || state === 'valid') ?? [];
  if (!open.length) return null;
  const revoke = async (id: string): Promise<void> => {
    await perform(changes.revokeTicket(id), 'The ticket is void.');
    again();
  };
  return (
    <Section title="Open tickets">
      <Table label="Open tickets" head={['Space', 'Role', '#Uses left', 'Ends', 'Do']}>
        {open.map((ticket) => (
          <tr key={ticket.id}>
            <td>{ticket.space}</td><td>{ticket.role}</td><td class="number">{ticket.uses_left}</td><td><When time={ticket.expires} /></td>
            <td class="actions"><Act look="quiet" needs="admin" label={`Take back: ticket for ${ticket.space}`} onClick={() => void revoke(ticket.id)}>Take back</Act></td>
          </tr>
        ))}
      </Table>
    </Section>
  );
}
