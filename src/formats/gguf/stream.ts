import { ArgumentError } from '../../core/errors.js';
import type { ByteSource } from '../source.js';
import type { GgufTensor } from './header.js';

/** Pieces of at most `chunkBytes` bytes; 8 MiB unless given. */
export interface StreamOptions {
  readonly chunkBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Some bytes of a tensor. `offset` counts from the tensor's first byte and is a multiple of 8. */
export interface TensorPiece {
  readonly tensor: GgufTensor;
  readonly offset: number;
  /** May be a view of memory that others share: read it, do not write to it. */
  readonly bytes: Uint8Array;
}

const defaultChunkBytes = 8 * 1024 * 1024;

/** Padding between wanted tensors is read along with them; anything longer splits the read. */
const largestGap = 1024;

/** One read: a stretch of one file with the tensors (or parts of them) in it. */
interface Window {
  readonly shard: number;
  readonly offset: number;
  length: number;
  readonly parts: { readonly tensor: GgufTensor; readonly from: number; readonly to: number }[];
}

/** Cuts the tensors, which come in file order, into windows of at most `chunkBytes`. */
function planWindows(tensors: readonly GgufTensor[], chunkBytes: number): Window[] {
  const windows: Window[] = [];
  let window: Window | undefined;
  for (const tensor of tensors) {
    for (let from = 0; from < tensor.byteLength; ) {
      const at = tensor.offset + from;
      if (window === undefined || window.shard !== tensor.shard || at - (window.offset + window.length) > largestGap || at - window.offset >= chunkBytes) {
        window = { shard: tensor.shard, offset: at, length: 0, parts: [] };
        windows.push(window);
      }
      // Cuts stay on multiples of 8 of the tensor: tensors start on such a multiple, and so do windows.
      const to = Math.min(tensor.byteLength, from + chunkBytes - (at - window.offset));
      window.parts.push({ tensor, from, to });
      window.length = at - window.offset + (to - from);
      from = to;
    }
  }
  return windows;
}

/** Reads window after window, the next one while the consumer works on this one. */
export async function* streamPieces(
  tensors: readonly GgufTensor[],
  sourceOf: (shard: number) => ByteSource,
  options: StreamOptions,
): AsyncGenerator<TensorPiece> {
  const { chunkBytes = defaultChunkBytes, signal } = options;
  if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 8 || chunkBytes % 8 !== 0) {
    throw new ArgumentError('chunkBytes', `pieces must have a multiple of 8 bytes, 8 or more, got ${chunkBytes}`);
  }
  const windows = planWindows(tensors, chunkBytes);
  const start = (index: number): Promise<Uint8Array> | undefined => {
    const window = windows[index];
    if (window === undefined) return undefined;
    const read = sourceOf(window.shard).read(window.offset, window.length, signal);
    // Awaited below, unless the consumer leaves first: then its failure concerns nobody.
    read.catch(() => undefined);
    return read;
  };
  let next = start(0);
  for (const [index, window] of windows.entries()) {
    const bytes = await next;
    next = start(index + 1);
    for (const { tensor, from, to } of window.parts) {
      const at = tensor.offset + from - window.offset;
      if (bytes !== undefined) yield { tensor, offset: from, bytes: bytes.subarray(at, at + (to - from)) };
    }
  }
}
