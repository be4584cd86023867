import { text as readText } from '../encoding/bytes.js';
import { canonicalJson } from '../encoding/canonical.js';
import { fromHex } from '../encoding/hex.js';
import { member, readObject, SIGNED_LIMITS, type Json, type JsonObject } from '../encoding/json.js';
import { INTEGER_MAX, parseTime } from '../encoding/time.js';
import { Refused, type RefusedCode } from '../refused.js';

/** Members of a signed object, each taken once; what is left at the end is unknown and refused. */
export class Members {
  readonly #left: Map<string, Json>;
  readonly #code: RefusedCode;
  readonly #what: string;

  /** @param code the reason of every refusal. @param what how the object is called. */
  constructor(object: JsonObject, code: RefusedCode, what: string) {
    this.#left = new Map(Object.entries(object));
    this.#code = code;
    this.#what = what;
  }

  /**
   * Takes a member in its form.
   *
   * @throws Refused when it is missing, or `read` gives `undefined`
   */
  take<T>(name: string, read: (value: Json) => T | undefined): T {
    const value = this.#left.get(name);
    this.#left.delete(name);
    const found = value === undefined ? undefined : read(value);
    if (found === undefined) throw this.refuse(name);
    return found;
  }

  /** Takes a member that may be `null`, see {@link Members.take}. */
  optional<T>(name: string, read: (value: Json) => T | undefined): T | null {
    return this.take(name, (value) => (value === null ? null : read(value)));
  }

  /** Refuses what was not taken. */
  end(): void {
    if (this.#left.size > 0) throw this.refuse('an unknown member');
  }

  /** A refusal that names what is wrong. */
  refuse(member: string): Refused {
    return new Refused(this.#code, `${this.#what}: ${member}`);
  }
}

/**
 * The object that stands in signed bytes; one spelling only is taken, the RFC 8785 form.
 *
 * @throws Refused with `code`
 */
export function readSignedBytes(bytes: Uint8Array, code: RefusedCode, what: string): JsonObject {
  const text = readText(bytes);
  const object = text === undefined ? undefined : readObject(text, SIGNED_LIMITS);
  if (!object) throw new Refused(code, `${what}: its text`);
  if (canonicalJson(object) !== text) throw new Refused(code, `${what}: its spelling`);
  return object;
}

/** A text. */
export const string = (value: Json): string | undefined => (typeof value === 'string' ? value : undefined);

/** A boolean. */
export const boolean = (value: Json): boolean | undefined => (typeof value === 'boolean' ? value : undefined);

/** An integer from 0 to 2^53 − 1. */
export function integer(value: Json): number | undefined {
  const fits = typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= INTEGER_MAX;
  return fits && !Object.is(value, -0) ? value : undefined;
}

/** An integer from 1. */
export function positive(value: Json): number | undefined {
  const found = integer(value);
  return found === 0 ? undefined : found;
}

/** 32 bytes as lower-case hex; the digits. */
export function hex32(value: Json): string | undefined {
  return typeof value === 'string' && value.length === 64 && fromHex(value) ? value : undefined;
}

/** A time, ms. */
export const time = (value: Json): number | undefined => (typeof value === 'string' ? parseTime(value) : undefined);

/** The address of a first frame: `ib^gib`, at most 512 bytes. */
export function address(value: Json): string | undefined {
  return typeof value === 'string' && value.includes('^') && byteLength(value) <= 512 ? value : undefined;
}

/** Up to 256 characters. */
export function words(value: Json): string | undefined {
  return typeof value === 'string' && [...value].length <= 256 ? value : undefined;
}

/** The name of an app or channel: 1 to 64 of `a-z 0-9 . _ -`, a letter or digit first. */
export function name(value: Json): string | undefined {
  return typeof value === 'string' && /^[a-z0-9][a-z0-9._-]{0,63}$/.test(value) ? value : undefined;
}

/** A semantic version, at most 64 bytes. */
export function version(value: Json): string | undefined {
  return typeof value === 'string' && value.length <= 64 && SEMVER.test(value) ? value : undefined;
}

const SEMVER =
  /^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$/;

/** Whether one version comes before another by semantic versioning 2.0 §11; what builds are called does not matter. */
export function isBelow(left: string, right: string): boolean {
  const [core, pre] = parts(left);
  const [otherCore, otherPre] = parts(right);
  const order = compare(core, otherCore);
  if (order !== 0) return order < 0;
  // What comes before a release is below it.
  if (pre.length === 0 || otherPre.length === 0) return pre.length > otherPre.length;
  return compare(pre, otherPre) < 0;
}

/** The numbers of a version, and the identifiers of what comes before it. */
function parts(version: string): [string[], string[]] {
  const bare = version.split('+', 1)[0] ?? '';
  const dash = bare.indexOf('-');
  const [core, pre] = dash < 0 ? [bare, ''] : [bare.slice(0, dash), bare.slice(dash + 1)];
  return [core.split('.'), pre === '' ? [] : pre.split('.')];
}

function compare(left: string[], right: string[]): number {
  for (const [at, one] of left.entries()) {
    const other = right[at];
    if (other === undefined) return 1;
    if (one === other) continue;
    const [number, otherNumber] = [/^\d+$/.test(one), /^\d+$/.test(other)];
    if (number && otherNumber) return BigInt(one) < BigInt(other) ? -1 : 1;
    if (number !== otherNumber) return number ? -1 : 1;
    return one < other ? -1 : 1;
  }
  return left.length - right.length;
}

/** A key version `v1` to `v9999`; its number. */
export function keyVersion(value: Json): number | undefined {
  return typeof value === 'string' && value.startsWith('v') ? keyDigits(value.slice(1)) : undefined;
}

/** A key version as the ledger writes it, `1` to `9999`; its number. */
export function keyDigits(value: Json): number | undefined {
  return typeof value === 'string' && /^[1-9]\d{0,3}$/.test(value) ? Number(value) : undefined;
}

/** A list of at most `most` items, each in its form. */
export function list<T>(value: Json, most: number, read: (item: Json) => T | undefined): T[] | undefined {
  if (!Array.isArray(value) || value.length > most) return undefined;
  const items: T[] = [];
  for (const item of value) {
    const found = read(item);
    if (found === undefined) return undefined;
    items.push(found);
  }
  return items;
}

/** Reads an object with exactly these members. */
export function exactly(value: Json, names: readonly string[]): JsonObject | undefined {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isObject || Object.keys(value).length !== names.length) return undefined;
  return names.every((it) => member(value, it) !== undefined) ? value : undefined;
}

/** Bytes of a text as UTF-8. */
export function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
