import type { TensorType } from '../core/tensor.js';
import type { RowShard } from '../ops/target.js';
import { isPacked } from '../plan/plan-value.js';
import type { Storage } from './backend.js';

/** Rows of a tensor in a storage of their own. */
export interface StoredShard extends RowShard {
  readonly storage: Storage;
}

/** A named tensor on a backend: packed weights as the target stores them, everything else as it is. */
export interface StoredTensor {
  readonly name: string;
  readonly type: TensorType;
  readonly shards: readonly StoredShard[];
  readonly byteLength: number;
}

/** Whether its bytes are laid out by the backend's weight store. */
export function isStoredPacked({ type, shards }: StoredTensor): boolean {
  return isPacked(type) && shards.some((shard) => shard.storage.memoryClass === 'weights');
}

/** What one shard of a tensor is by itself. */
export function shardType(type: TensorType, shard: RowShard): TensorType {
  return { dtype: type.dtype, shape: [shard.rows, ...type.shape.slice(1)] };
}
