import { joinAddress, validateAddress, type AddressCode } from './address.js';
import { gibOf, hasTjp, isPrimitive, type IbGib } from './hash.js';

/**
 * What is wrong with a record, as every implementation of the format says it; empty when it is valid. Strict acceptance is
 * `readRecord`. Spec: ibgib §1.3.
 *
 * @throws IbGibError where the format throws
 */
export function validateRecord(record: IbGib): (AddressCode | 'gib_mismatch')[] {
  const { ib, gib = '' } = record;
  const codes = validateAddress(joinAddress({ ib, gib }));
  if (codes.length > 0 || isPrimitive(gib)) return codes;
  if (gibOf(record, hasTjp(record)) === gib) return [];
  const old = withoutSource(record);
  return old && gibOf(old, hasTjp(old)) === gib ? [] : ['gib_mismatch'];
}

/** Old `rel8` records were hashed before two members were added. */
function withoutSource(record: IbGib): IbGib | undefined {
  if (record.ib !== 'rel8' || typeof record.data !== 'object' || record.data === null) return undefined;
  const { src, srcAddr, ...data } = record.data as Record<string, unknown>;
  return src && srcAddr ? { ...record, data } : undefined;
}

/** The first thing that is wrong with each bad address of the relations. Spec: ibgib §1.3. */
export function validateRelations(rel8ns: IbGib['rel8ns']): AddressCode[] {
  const addresses = Object.values(rel8ns ?? {}).flatMap((list) => list ?? []);
  return addresses.flatMap((address) => validateAddress(address).slice(0, 1));
}
