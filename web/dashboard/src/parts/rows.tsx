/** A list of any length: only the rows that are seen are in the document. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { squeeze, windowOf } from '../pure/window.js';

/**
 * @param height of a row, in CSS pixels; all are the same
 * @param onEnd called when the last rows come near
 */
export function Rows(props: {
  label: string;
  rows: number;
  height: number;
  render: (row: number) => ComponentChildren;
  onEnd?: () => void;
  top?: number;
}) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, seen: 600 });
  const ratio = squeeze(props.rows, props.height);
  const look = (): void => {
    const element = box.current;
    if (!element) return;
    const { scrollTop: top, clientHeight: seen } = element;
    // Within the rows that are there already, scrolling is the browser's own work.
    setView((before) => (ratio === 1 && isSame(props, before, { top, seen }) ? before : { top, seen }));
  };
  useEffect(() => {
    look();
    const watcher = new ResizeObserver(look);
    watcher.observe(box.current!);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => {
    if (props.top !== undefined && box.current) box.current.scrollTop = props.top * props.height;
  }, [props.top]);
  const tall = (props.rows * props.height) / ratio;
  const shown = windowOf(props.rows, props.height, view.top * ratio, view.seen);
  useEffect(() => {
    if (shown.end >= props.rows - 20) props.onEnd?.();
  }, [shown.end, props.rows]);
  const rendered: ComponentChildren[] = [];
  for (let row = shown.first; row < shown.end; row += 1) {
    rendered.push(
      <div
        class="row" role="listitem" key={row} aria-setsize={props.rows} aria-posinset={row + 1}
        style={{ height: `${props.height}px`, transform: `translateY(${row * props.height - view.top * (ratio - 1)}px)` }}
      >
        {props.render(row)}
      </div>,
    );
  }
  return (
    <div class="rows" ref={box} onScroll={look} tabIndex={0} role="region" aria-label={props.label}>
      <div class="rows-inner" role="list" style={{ height: `${tall}px` }}>{rendered}</div>
    </div>
  );
}

interface View {
  top: number;
  seen: number;
}

function isSame({ rows, height }: { rows: number; height: number }, a: View, b: View): boolean {
  const [before, after] = [windowOf(rows, height, a.top, a.seen), windowOf(rows, height, b.top, b.seen)];
  return before.first === after.first && before.end === after.end;
}
