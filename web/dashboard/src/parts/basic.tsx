/** Small parts that every page uses. */
import { useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import type { Refusal } from '../door/call.js';
import type { Role } from '../door/documents.js';
import { fullTime, relative, shortId } from '../pure/format.js';
import { lacks, names, now, tell } from '../state.js';
import { Icon, type IconName } from './icon.js';

/** How something stands. */
export type Tone = 'ok' | 'busy' | 'warn' | 'bad' | 'off';

/** A state: icon, text and colour together. */
export function State({ tone, children, icon = tone }: { tone: Tone; children: ComponentChildren; icon?: IconName }) {
  return (
    <span class={`state ${tone}`}>
      <Icon name={icon} />
      <span>{children}</span>
    </span>
  );
}

/** A time told against now; the full one is its title. */
export function When({ time }: { time: string | number | null | undefined }) {
  if (time === null || time === undefined) return <span class="dim">–</span>;
  const ms = typeof time === 'number' ? time : Date.parse(time);
  return (
    <time dateTime={new Date(ms).toISOString()} title={fullTime(ms)}>
      {relative(ms, now.value)}
    </time>
  );
}

/** A node by its name; its whole id is the title. */
export function Name({ id, name }: { id: string | null | undefined; name?: string | null | undefined }) {
  return <span title={id ?? undefined}>{name || (id ? names.value.get(id) ?? shortId(id) : 'unknown')}</span>;
}

/** A button that says why it cannot be used where a role is not enough. */
export function Act(props: {
  children: ComponentChildren;
  onClick: () => void;
  needs?: Role;
  look?: 'main' | 'plain' | 'danger' | 'quiet';
  busy?: boolean;
  disabled?: string | null;
  /** Its whole name, where others are called the same; it begins with what is seen. */
  label?: string;
}) {
  const why = (props.needs ? lacks(props.needs) : null) ?? props.disabled ?? null;
  const off = why !== null || props.busy === true;
  return (
    <button
      type="button"
      class={`act ${props.look ?? 'plain'}`}
      aria-disabled={off ? 'true' : undefined}
      aria-label={props.label}
      title={why ?? undefined}
      onClick={() => (off ? why && tell({ tone: 'bad', text: why, hint: null, audit: null }) : props.onClick())}
    >
      {props.children}
    </button>
  );
}

/** A command to copy. */
export function Command({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
    } catch {
      // The text stands there to be marked.
    }
  };
  return (
    <span class="command">
      <code tabIndex={0}>{text}</code>
      <button type="button" class="act quiet" aria-label={`Copy ${text}`} onClick={() => void copy()}>
        <Icon name={copied ? 'ok' : 'copy'} />
        <span role="status">{copied ? 'copied' : ''}</span>
      </button>
    </span>
  );
}

/** What is told where there is nothing, and what to do next. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="lead">{title}</p>
      {children}
    </div>
  );
}

/** What failed. */
export function Failed({ error }: { error: Refusal | null }) {
  if (!error) return null;
  return (
    <div class="failed" role="alert">
      <State tone="bad">{error.message}</State>
      {error.hint && <p class="dim"><Hint text={error.hint} /></p>}
    </div>
  );
}

/** A text in which commands stand between backticks. */
export function Hint({ text }: { text: string }) {
  return <>{text.split('`').map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part))}</>;
}

/** What is told while nothing is there yet. */
export function Loading() {
  return <p class="dim loading" role="status">Asking the node…</p>;
}

/** A section of a page, with what can be done beside its title. */
export function Section({ title, children, actions, id }: { title: string; children: ComponentChildren; actions?: ComponentChildren; id?: string }) {
  return (
    <section class="section" id={id}>
      <div class="section-head">
        <h2>{title}</h2>
        {actions && <div class="actions">{actions}</div>}
      </div>
      {children}
    </section>
  );
}

/** A table that scrolls sideways inside itself where it must, and can then be reached by keyboard. */
export function Table({ label, head, children }: { label: string; head: readonly string[]; children: ComponentChildren }) {
  return (
    <div class="table" role="region" aria-label={label} tabIndex={0}>
      <table>
        <thead>
          <tr>{head.map((text) => <th key={text} scope="col">{text.startsWith('#') ? <span class="number">{text.slice(1)}</span> : text}</th>)}</tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
