/** The first sentence of the overview: what is in step with whom, in plain words. */
import { counted, list } from './format.js';

/** A space, as far as the sentence needs it. */
export interface SpaceFacts {
  name: string;
  paused: boolean;
  peers: readonly { name: string; connected: boolean; inStep: boolean }[];
}

/** One statement and how it stands. */
export interface Statement {
  tone: 'ok' | 'busy' | 'off';
  text: string;
}

/** A statement for each space that has one, those that are not in step first. */
export function statements(spaces: readonly SpaceFacts[]): Statement[] {
  const order = { busy: 0, off: 1, ok: 2 };
  return spaces.map(statementOf).sort((a, b) => order[a.tone] - order[b.tone]);
}

function statementOf(space: SpaceFacts): Statement {
  const { name, peers } = space;
  if (space.paused) return { tone: 'off', text: `${name} is paused.` };
  if (!peers.length) return { tone: 'off', text: `${name} is on this node alone.` };
  const names = (wanted: readonly { name: string }[]): string => list(wanted.map((peer) => peer.name));
  const step = peers.filter((peer) => peer.connected && peer.inStep);
  const behind = peers.filter((peer) => peer.connected && !peer.inStep);
  const away = peers.filter((peer) => !peer.connected);
  const gone = away.length ? `; ${names(away)} ${away.length === 1 ? 'is' : 'are'} away` : '';
  if (behind.length) return { tone: 'busy', text: `${name} is catching up with ${names(behind)}${gone}.` };
  if (step.length) return { tone: 'ok', text: `${name} is in step with ${names(step)}${gone}.` };
  return { tone: 'off', text: `${name} waits for ${names(away)}, who ${away.length === 1 ? 'is' : 'are'} away.` };
}

/** What a person must decide, counted; an empty text when there is nothing. */
export function needs(conflicts: number, holds: number): string {
  const parts: string[] = [];
  if (conflicts) parts.push(counted(conflicts, 'conflict'));
  if (holds) parts.push(counted(holds, 'held change'));
  if (!parts.length) return '';
  return `${list(parts)} ${conflicts + holds === 1 ? 'needs' : 'need'} you.`;
}
