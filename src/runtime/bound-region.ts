import type { Location } from '../plan/execution-plan.js';
import type { Bindings, Region } from './backend.js';

/** Where an argument of a planned step lies once the plan's banks and leaves have storage. */
export function boundRegion(bindings: Bindings, location: Location): Region {
  const { offset, byteLength } = location;
  if (location.storage === 'arena') return { storage: bindings.bank(location.bank), offset, byteLength };
  const { owner, shard } = location;
  return { storage: bindings.leaf(owner, shard), offset: (bindings.leafOffset?.(owner) ?? 0) + offset, byteLength };
}
