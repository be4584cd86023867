/** The gib of a primitive. */
export const PRIMITIVE_GIB = 'gib';

/** What can be wrong with an address. Spec: ibgib §1.3. */
export type AddressCode =
  | 'addr_required' | 'no_delimiter' | 'starts_with_delimiter' | 'ib_required' | 'ib_contains_delimiter' | 'gib_required'
  | 'gib_invalid_chars' | 'gib_bad_hash';

/** Thrown where the format throws instead of giving a code: an empty address, an empty segment of a gib, a gib that has no form. */
export class IbGibError extends Error {
  /** The reason, for programs. */
  readonly code: 'addr_required' | 'gib_empty_piece' | 'has_tjp_but_empty' | 'has_tjp_but_none' | 'tjp_first_falsy';

  constructor(code: IbGibError['code']) {
    super(code);
    this.code = code;
  }
}

/** The two parts of an address. */
export interface IbAndGib {
  ib: string;
  gib: string;
}

/**
 * Splits an address at its last `^`; without one, all of it is the gib. Spec: ibgib §1.2.
 *
 * @throws IbGibError `addr_required` for an empty text
 */
export function splitAddress(address: string): IbAndGib {
  if (address === '') throw new IbGibError('addr_required');
  const at = address.lastIndexOf('^');
  return { ib: at < 0 ? '' : address.slice(0, at), gib: address.slice(at + 1) };
}

/** `ib ^ gib`. */
export function joinAddress({ ib, gib }: IbAndGib): string {
  return `${ib}^${gib}`;
}

/** What a gib says. */
export type GibInfo =
  | { isPrimitive: true }
  | { isPrimitive?: undefined; punctiliarHash: string; tjpGib?: string; piecesCount: number; delimiter: '.' };

/**
 * Splits a gib: the hash of this very frame, and the gib of its first frame. Spec: ibgib §1.2.
 *
 * @throws IbGibError `gib_empty_piece`
 */
export function gibInfo(gib: string): GibInfo {
  if (gib === PRIMITIVE_GIB) return { isPrimitive: true };
  const pieces = gib.split('.');
  if (pieces.includes('')) throw new IbGibError('gib_empty_piece');
  const [punctiliarHash, ...rest] = pieces as [string, ...string[]];
  const tjp = rest.length > 0 ? { tjpGib: rest.join('.') } : {};
  return { punctiliarHash, ...tjp, piecesCount: pieces.length, delimiter: '.' };
}

/** The gib of the first frame of the timeline that an address would be in: what follows its hash, else its own gib. */
export function timelineGib(gib: string): string {
  const at = gib.indexOf('.');
  return at < 0 ? gib : gib.slice(at + 1);
}

/**
 * What is wrong with an address, in order; empty when it is valid. Spec: ibgib §1.3.
 *
 * @throws IbGibError `gib_empty_piece`
 */
export function validateAddress(address: string): AddressCode[] {
  if (address === '') return ['addr_required'];
  const codes: AddressCode[] = [];
  if (!address.includes('^')) codes.push('no_delimiter');
  if (address.startsWith('^')) codes.push('starts_with_delimiter');
  const { ib, gib } = splitAddress(address);
  if (ib === '') codes.push('ib_required');
  if (ib.includes('^')) codes.push('ib_contains_delimiter');
  return [...codes, ...validateGib(gib)];
}

function validateGib(gib: string): AddressCode[] {
  if (gib === '') return ['gib_required'];
  if (gib.includes('^')) return ['gib_invalid_chars'];
  const info = gibInfo(gib);
  if (info.isPrimitive) return [];
  if (!isHash(info.punctiliarHash)) return ['gib_bad_hash'];
  return info.tjpGib === undefined ? [] : validateGib(info.tjpGib);
}

/** 32 or 64 hex digits of either case. */
function isHash(text: string): boolean {
  return /^(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{64})$/.test(text) && !text.endsWith('\n');
}
