/** Two texts side by side where there is room, one below the other where there is not. */
import type { ComponentChildren } from 'preact';
import type { DiffRow } from '../pure/diff.js';

const ROWS = 2_000;

/** @param before what the left column is called; children may stand in a head instead */
export function DiffView({ rows, before, after, heads }: { rows: readonly DiffRow[]; before: string; after: string; heads?: [ComponentChildren, ComponentChildren] }) {
  return (
    <div class="diff" role="region" aria-label={`Difference from ${before} to ${after}`} tabIndex={0}>
      <div class="diff-row diff-head"><div class="diff-old">{heads?.[0] ?? before}</div><div class="diff-new">{heads?.[1] ?? after}</div></div>
      {rows.slice(0, ROWS).map((row, at) => (
        <div class={`diff-row ${row.kind}`} key={at}>
          <Cell side="old" kind={row.kind} line={row.old} />
          <Cell side="new" kind={row.kind} line={row.new} />
        </div>
      ))}
      {rows.length > ROWS && <p class="dim">and {rows.length - ROWS} more lines</p>}
    </div>
  );
}

function Cell({ side, kind, line }: { side: 'old' | 'new'; kind: DiffRow['kind']; line: DiffRow['old'] }) {
  if (kind === 'head') return <div class={`diff-${side} gap`}><span class="dim">⋯</span></div>;
  const isChange = line !== null && kind !== 'same';
  const sign = !isChange ? ' ' : side === 'old' ? '−' : '+';
  return (
    <div class={`diff-${side}${isChange ? ' is-change' : ''}${line ? '' : ' blank'}`}>
      <span class="diff-n">{line?.n ?? ''}</span>
      <span class="diff-sign">{sign}{isChange && <span class="visually-hidden">{side === 'old' ? 'removed: ' : 'added: '}</span>}</span>
      <span class="diff-text">{line?.text ?? ''}</span>
    </div>
  );
}
