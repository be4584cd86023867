/** Small drawings of our own; beside each stands a text, so they are hidden from what reads aloud. */

const PATHS = {
  ok: 'M3 8.5l3.2 3.2L13 5',
  busy: 'M8 2.5a5.5 5.5 0 1 1-5.2 3.7M2.5 2.8v3.6h3.6',
  warn: 'M8 2.2l6 11H2zM8 6.5v3M8 11.4v.2',
  bad: 'M4 4l8 8M12 4l-8 8',
  off: 'M3.5 8h9',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  dir: 'M2 4.5V12a1 1 0 0 0 1 1h10a1 1 0 0 0 1-1V6a1 1 0 0 0-1-1H8L6.5 3H3a1 1 0 0 0-1 1z',
  file: 'M4 2h5.5L13 5.500V14H4zM9.5 2v3.500H13',
  link: 'M3 13L13 3M8 3h5v5',
  doc: 'M3.5 2.5h9v11h-9zM6 6h4M6 8.500h4M6 11h2.5',
  copy: 'M5.5 5.500h8v8h-8zM3 10.500H2.500v-8h8V3',
  down: 'M8 2.500v8M4.5 7.500L8 11l3.5-3.500M3 13.500h10',
  overview: 'M2.5 2.500h4.500v6H2.500zM9 2.500h4.500v3.500H9zM9 8h4.500v5.500H9zM2.5 10.500h4.500v3H2.500z',
  links: 'M6.5 9.500l3-3M7 4.500l1.2-1.200a2.7 2.7 0 0 1 3.9 3.900L10.8 8.500M9 11.500l-1.2 1.200a2.7 2.7 0 0 1-3.9-3.900L5.2 7.5',
  sagas: 'M2.5 5h9M9 2.500L11.5 5 9 7.500M13.5 11h-9M7 8.500L4.5 11 7 13.5',
  releases: 'M8 2l5.5 3v6L8 14l-5.5-3V5zM2.5 5L8 8l5.5-3M8 8v6',
  keys: 'M10.5 2.500a3 3 0 1 1-2.6 4.500L3 12v1.500h2V12h1.500v-1.500H8L8.8 8',
  audit: 'M3.5 2.500h9v11h-9zM6 5.500h4M6 8h4M6 10.500h4',
  seal: 'M8 1.800l1.7 1.3 2.1.1.7 2 1.6 1.3-.6 2 .6 2-1.6 1.3-.700 2-2.1.1L8 15.200l-1.7-1.3-2.1-.1-.700-2L1.9 10.500l.6-2-.6-2 1.6-1.3.700-2 2.1-.1zM5.5 8.500l1.8 1.8 3.2-3.6',
} as const;

/** The name of a drawing. */
export type IconName = keyof typeof PATHS;

/** A drawing of 16 by 16 that takes the colour of the text. */
export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}
