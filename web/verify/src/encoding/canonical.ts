import type { Json } from './json.js';

/**
 * The RFC 8785 form of a value: members ordered by UTF-16 code units, ECMAScript numbers, no spaces. `undefined` when a text
 * holds a lone surrogate, for then there is none. Spec: gateway §7.3.
 */
export function canonicalJson(value: Json): string | undefined {
  if (Array.isArray(value)) return joined(value.map(canonicalJson), '[', ']');
  if (typeof value === 'string') return value.isWellFormed() ? JSON.stringify(value) : undefined;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const member = (name: string): string | undefined => {
    const [before, behind] = [canonicalJson(name), canonicalJson(value[name]!)];
    return before === undefined || behind === undefined ? undefined : `${before}:${behind}`;
  };
  // The default order of sort is that of UTF-16 code units.
  return joined(Object.keys(value).sort().map(member), '{', '}');
}

function joined(parts: (string | undefined)[], open: string, close: string): string | undefined {
  return parts.includes(undefined) ? undefined : open + parts.join(',') + close;
}
