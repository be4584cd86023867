/** Series over time. The drawing library is loaded when the first chart is shown. */
import { useEffect, useRef } from 'preact/hooks';
import type uPlot from 'uplot';
import { fullTime } from '../pure/format.js';
import 'uplot/dist/uPlot.min.css';

/** One line of a chart; `colour` is the name of a custom property of the style sheet. */
export interface Series {
  label: string;
  colour: string;
  fill?: boolean;
  unit: (value: number) => string;
}

const HEIGHT = 150;

/** @param data times in seconds, then the values of each series */
export function Chart(props: { label: string; data: (number | null)[][]; series: [Series, ...Series[]]; height?: number; step?: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const drawn = useRef<uPlot | null>(null);
  const data = useRef(props.data);
  data.current = props.data;
  useEffect(() => {
    let gone = false;
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    const draw = async (): Promise<void> => {
      const { default: Plot } = await import('uplot');
      if (gone || !box.current) return;
      drawn.current?.destroy();
      drawn.current = new Plot(options(props, box.current), data.current as uPlot.AlignedData, box.current);
    };
    void draw();
    const redraw = (): void => void draw();
    scheme.addEventListener('change', redraw);
    const watcher = new ResizeObserver(() => {
      if (box.current) drawn.current?.setSize({ width: box.current.clientWidth, height: props.height ?? HEIGHT });
    });
    watcher.observe(box.current!);
    return () => {
      gone = true;
      scheme.removeEventListener('change', redraw);
      watcher.disconnect();
      drawn.current?.destroy();
      drawn.current = null;
    };
  }, [props.series.map((series) => series.label).join()]);
  useEffect(() => drawn.current?.setData(props.data as uPlot.AlignedData), [props.data]);
  return (
    <figure class="chart">
      <figcaption>
        {props.label}
        {props.series.length > 1 && props.series.map((series, at) => <span class={`legend c${at}`} key={series.label}>{series.label}</span>)}
      </figcaption>
      <div ref={box} role="img" aria-label={describe(props.label, props.data, props.series)} />
    </figure>
  );
}

function describe(label: string, data: (number | null)[][], series: Series[]): string {
  const parts = series.map(({ label: name, unit }, at) => {
    const last = data[at + 1]?.findLast((value) => value !== null);
    return `${name} now ${last === undefined || last === null ? 'unknown' : unit(last)}`;
  });
  return `${label}: ${parts.join(', ')}`;
}

function clock(second: number): string {
  return fullTime(second * 1000).slice(11);
}

function options(props: Parameters<typeof Chart>[0], box: HTMLElement): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const grid = { stroke: colour('--line'), width: 1 };
  const font = '11px system-ui, sans-serif';
  const axis = { stroke: colour('--dim'), font, grid, ticks: { show: false } };
  const unit = props.series[0].unit;
  return {
    width: box.clientWidth,
    height: props.height ?? HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.15, 1)] } },
    axes: [{ ...axis, space: 80, size: 24, values: (_, values) => values.map(clock) }, { ...axis, size: 62, space: 34, values: (_, values) => values.map(unit) }],
    series: [
      {},
      ...props.series.map((series) => ({
        label: series.label, stroke: colour(series.colour), width: 1.5, points: { show: false },
        ...(series.fill ? { fill: `${colour(series.colour)}22` } : {}),
      })),
    ],
  };
}
