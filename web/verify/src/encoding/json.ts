/** A JSON value. */
export type Json = null | boolean | number | string | Json[] | JsonObject;
/** A JSON object. */
export interface JsonObject {
  [name: string]: Json;
}

/** What {@link readJson} allows. */
export interface JsonLimits {
  /** Levels of arrays and objects. */
  depth: number;
  /** Values of any kind. */
  values: number;
  /** Numbers must be written as integers without fraction or exponent, as in everything that is signed. */
  integersOnly?: boolean;
}

/** Limits of records. Spec: ibgib §12.2.2. */
export const RECORD_LIMITS: JsonLimits = { depth: 64, values: 65_536 };
/** Limits of signed objects: a manifest has at most 100 000 files of five values each. */
export const SIGNED_LIMITS: JsonLimits = { depth: 64, values: 1_000_000, integersOnly: true };

/**
 * Reads JSON strictly: no member twice, no `__proto__`, no lone surrogate, no number that overflows, limited depth and count.
 * `undefined` for everything else. Spec: ibgib §12.2.2 `bad_json`.
 */
export function readJson(text: string, limits: JsonLimits): Json | undefined {
  return new Scanner(text, limits).isGood() ? (JSON.parse(text) as Json) : undefined;
}

/** The object of a JSON text, see {@link readJson}. */
export function readObject(text: string, limits: JsonLimits): JsonObject | undefined {
  const value = readJson(text, limits);
  return isObject(value) ? value : undefined;
}

/** Whether a value is a JSON object. */
export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The own member of an object; `undefined` when there is none, and for names that JavaScript inherits. */
export function member(object: JsonObject, name: string): Json | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Walks a text once and decides; the value itself is made by `JSON.parse` afterwards. */
class Scanner {
  #at = 0;
  #values = 0;
  readonly #text: string;
  readonly #limits: JsonLimits;

  constructor(text: string, limits: JsonLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  isGood(): boolean {
    if (!this.#value(0)) return false;
    this.#space();
    return this.#at === this.#text.length;
  }

  #space(): void {
    while (' \t\n\r'.includes(this.#text[this.#at] ?? '-')) this.#at++;
  }

  #takes(token: string): boolean {
    this.#space();
    if (!this.#text.startsWith(token, this.#at)) return false;
    this.#at += token.length;
    return true;
  }

  #value(depth: number): boolean {
    if (++this.#values > this.#limits.values) return false;
    this.#space();
    switch (this.#text[this.#at]) {
      case '{':
        return depth < this.#limits.depth && this.#object(depth + 1);
      case '[':
        return depth < this.#limits.depth && this.#array(depth + 1);
      case '"':
        return this.#string() !== undefined;
      case 't':
        return this.#takes('true');
      case 'f':
        return this.#takes('false');
      case 'n':
        return this.#takes('null');
      default:
        return this.#number();
    }
  }

  #object(depth: number): boolean {
    this.#at++;
    if (this.#takes('}')) return true;
    const names = new Set<string>();
    do {
      this.#space();
      const name = this.#string();
      if (name === undefined || name === '__proto__' || names.has(name)) return false;
      names.add(name);
      if (!this.#takes(':') || !this.#value(depth)) return false;
    } while (this.#takes(','));
    return this.#takes('}');
  }

  #array(depth: number): boolean {
    this.#at++;
    if (this.#takes(']')) return true;
    do {
      if (!this.#value(depth)) return false;
    } while (this.#takes(','));
    return this.#takes(']');
  }

  #string(): string | undefined {
    if (this.#text[this.#at] !== '"') return undefined;
    let end = this.#at + 1;
    while (end < this.#text.length && this.#text[end] !== '"') end += this.#text[end] === '\\' ? 2 : 1;
    let read: string;
    try {
      // Knows every escape, and refuses control characters and a text that does not end.
      read = JSON.parse(this.#text.slice(this.#at, end + 1)) as string;
    } catch {
      return undefined;
    }
    this.#at = end + 1;
    return read.isWellFormed() ? read : undefined;
  }

  #number(): boolean {
    const token = this.#limits.integersOnly ? /-?(?:0|[1-9]\d*)/y : /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
    token.lastIndex = this.#at;
    const spelled = token.exec(this.#text)?.[0];
    if (spelled === undefined || !Number.isFinite(Number(spelled))) return false;
    this.#at += spelled.length;
    return true;
  }
}
