/** Greatest integer in a signed object: 2^53 − 1. Spec: gateway §7.3. */
export const INTEGER_MAX = Number.MAX_SAFE_INTEGER;

/**
 * Milliseconds since 1970 of an RFC 3339 time, strictly: `T`, `Z` or a numeric offset, up to nine digits of a second (cut to
 * milliseconds), 1970 or later, a day that exists, no leap second. `undefined` for anything else. Spec: gateway §7.9.
 */
export function parseTime(text: string): number | undefined {
  const parts = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (!parts) return undefined;
  const [year, month, day, hour, minute, second] = parts.slice(1, 7).map(Number) as [number, number, number, number, number, number];
  if (year < 1970 || hour > 23 || minute > 59 || second > 59) return undefined;
  const midnight = new Date(Date.UTC(year, month - 1, day));
  if (midnight.getUTCMonth() !== month - 1 || midnight.getUTCDate() !== day) return undefined;
  const millis = Number((parts[7] ?? '').padEnd(3, '0').slice(0, 3));
  const offset = offsetMinutes(parts[8]!);
  if (offset === undefined) return undefined;
  const ms = midnight.getTime() + ((hour * 60 + minute - offset) * 60 + second) * 1000 + millis;
  return ms < 0 ? undefined : ms;
}

/** Minutes east of UTC. */
function offsetMinutes(zone: string): number | undefined {
  if (zone === 'Z') return 0;
  const [hours, minutes] = [Number(zone.slice(1, 3)), Number(zone.slice(4, 6))];
  if (hours > 23 || minutes > 59) return undefined;
  return (zone[0] === '-' ? -1 : 1) * (hours * 60 + minutes);
}

/** `2026-11-28T09:30:00.000Z`. */
export function writeTime(ms: number): string {
  return new Date(ms).toISOString();
}
