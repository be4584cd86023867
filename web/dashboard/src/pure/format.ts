/** Numbers, sizes and times as people read them. Pure: the time of day is an argument. */

const SIZE_UNITS = ['B', 'KB', 'MB', 'GB', 'TB', 'PB'];

/** A size in decimal units: `18 B`, `1.2 MB`. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < SIZE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : 1;
  return `${value.toFixed(digits)} ${SIZE_UNITS[unit]}`;
}

/** A whole number with thin gaps: `100 000`. */
export function count(value: number): string {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** `1 file`, `2 files`. */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A span of time, its greatest unit or two: `45 ms`, `3.2 s`, `4 min`, `2 h 5 min`, `12 d`. */
export function span(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** How long ago, or how far ahead: `just now`, `4 min ago`, `in 3 d`. */
export function relative(timeMs: number, nowMs: number): string {
  const gap = timeMs - nowMs;
  const size = Math.abs(gap);
  if (size < 10_000) return 'just now';
  const words = size < 60_000 ? `${Math.floor(size / 1000)} s` : span(size).replace(/ \d+ min$/, (rest) => (size >= 3_600_000 ? '' : rest));
  return gap < 0 ? `${words} ago` : `in ${words}`;
}

/** Local date and time to the second, for titles. */
export function fullTime(timeMs: number): string {
  const time = new Date(timeMs);
  if (Number.isNaN(time.getTime())) return '';
  const two = (value: number): string => value.toString().padStart(2, '0');
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** An id of a node, shortened as the command line does: the first eight characters behind the prefix. */
export function shortId(id: string): string {
  return id.replace(/^st[a-z]1/, '').slice(0, 8);
}

/** The algorithms of a link in words: `AES-256-GCM, X25519 + ML-KEM-768`. */
export function suite(text: string | undefined): string {
  if (!text) return '';
  const [cipher = '', group = ''] = text.split('/');
  const name = cipher.replace(/^TLS_?(13)?_?/, '').replace(/_SHA\d+$/, '').replaceAll('_', '-').replace('CHACHA20-POLY1305', 'ChaCha20-Poly1305');
  return [name, group.replace('X25519MLKEM768', 'X25519 + ML-KEM-768')].filter(Boolean).join(', ');
}

/** Names in a sentence: `a`, `a and b`, `a, b and c`. */
export function list(names: readonly string[]): string {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
