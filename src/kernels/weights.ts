import type { GpuCapabilities } from '../core/capabilities.js';
import { ArgumentError, OutOfMemoryError } from '../core/errors.js';
import { formatType, roundUp, type TensorType } from '../core/tensor.js';
import type { PackedWrite, RowShard, WeightStore } from '../ops/target.js';
import { isBlockType, weightLayout } from './weights-layout.js';
import { packBlocks } from './weights-pack.js';

/** Four rows of any block type end at a multiple of 4 bytes in every plane, which is what a WebGPU buffer write needs; it also keeps vec4 stores aligned in every shard. */
export const rowGroup = 4;

/** Weights in their true size: blocks split into planes of aligned words (see weights-layout.ts), rows spread over as few bindings as the limits allow. */
export function gpuWeightStore(capabilities: GpuCapabilities): WeightStore {
  const { maxStorageBufferBindingSize, maxBufferSize } = capabilities.limits;
  const limit = Math.min(maxStorageBufferBindingSize, maxBufferSize);
  return {
    rowGroup,
    shards: (type) => shardRows(type, limit),
    byteLength: (type) => weightLayout(type).byteLength,
    pack,
  };
}

function withRows(type: TensorType, rows: number): TensorType {
  return { dtype: type.dtype, shape: [rows, ...type.shape.slice(1)] };
}

function shardRows(type: TensorType, limit: number): readonly RowShard[] {
  const whole = weightLayout(type);
  if (whole.byteLength <= limit) return [{ start: 0, rows: whole.rows }];
  const rowBytes = whole.planes.reduce((sum, plane) => sum + plane.rowBytes, 0);
  const alignment = 16 * whole.planes.length;
  const most = Math.floor((limit - alignment) / rowBytes / rowGroup) * rowGroup;
  if (most < rowGroup) {
    const requested = weightLayout(withRows(type, rowGroup)).byteLength;
    throw new OutOfMemoryError(
      `${rowGroup} rows of ${formatType(type)} need ${requested} bytes, and one binding of this device holds ${limit}: use another device`,
      {
        requested,
        available: limit,
      },
    );
  }
  const count = Math.ceil(whole.rows / most);
  const rows = roundUp(Math.ceil(whole.rows / count), rowGroup);
  return Array.from({ length: Math.ceil(whole.rows / rows) }, (_, i) => ({ start: i * rows, rows: Math.min(rows, whole.rows - i * rows) }));
}

function pack(type: TensorType, firstRow: number, rows: Uint8Array): readonly PackedWrite[] {
  const layout = weightLayout(type);
  if (firstRow % rowGroup !== 0) throw new ArgumentError('firstRow', `rows are packed in groups of ${rowGroup}; got a first row of ${firstRow}`);
  if (isBlockType(layout.dtype)) {
    const packed = packBlocks(layout.dtype, rows);
    return layout.planes.map((plane, i) => ({ offset: plane.offset + firstRow * plane.rowBytes, bytes: packed[i] ?? new Uint8Array() }));
  }
  return layout.planes.map((plane) => {
    const trueBytes = layout.columns * plane.bytes;
    return { offset: firstRow * plane.rowBytes, bytes: padRows(rows, trueBytes, plane.rowBytes) };
  });
}

/** Rows of `from` bytes, each followed by zeros up to `to` bytes; the whole a multiple of 4 bytes long. */
function padRows(rows: Uint8Array, from: number, to: number): Uint8Array {
  if (from === to && rows.byteLength % 4 === 0) return rows;
  const count = rows.byteLength / from;
  const padded = new Uint8Array(roundUp(count * to, 4));
  for (let row = 0; row < count; row++) padded.set(rows.subarray(row * from, (row + 1) * from), row * to);
  return padded;
}
