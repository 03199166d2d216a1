import { ArgumentError } from '../../core/errors.js';
import type { ByteSource } from '../source.js';
import type { GgufTensor } from './header.js';

/** Pieces of at most `chunkBytes` bytes; 8 MiB unless given. */
export interface StreamOptions {
  /** Most bytes of one read, unless a unit has more. */
  readonly chunkBytes?: number | undefined;
  /** Pieces of a tensor are cut at multiples of this: rows, for instance. A multiple of 8; 8 unless given. */
  readonly unitBytes?: ((tensor: GgufTensor) => number) | undefined;
  /** Reads on their way at once, the one that the consumer has included; 2 unless given. */
  readonly reads?: number | undefined;
  /** Whether reads share memory, which is faster: a piece is gone when the next one is asked for. */
  readonly reuse?: boolean | undefined;
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

/** Tensors start at multiples of this, and are cut there. */
const leastUnitBytes = 8;

/** Padding between wanted tensors is read along with them; anything longer splits the read. */
const largestGap = 1024;

/** One read: a stretch of one file with the tensors (or parts of them) in it. */
interface Window {
  readonly shard: number;
  readonly offset: number;
  length: number;
  readonly parts: { readonly tensor: GgufTensor; readonly from: number; readonly to: number }[];
}

/** Cuts the tensors, which come in file order, into windows of at most `chunkBytes`, or of one unit. */
function planWindows(tensors: readonly GgufTensor[], chunkBytes: number, unitOf: (tensor: GgufTensor) => number): Window[] {
  const windows: Window[] = [];
  let window: Window | undefined;
  for (const tensor of tensors) {
    const unit = unitOf(tensor);
    const wholeUnits = (bytes: number): number => Math.floor(bytes / unit) * unit;
    for (let from = 0; from < tensor.byteLength; ) {
      const at = tensor.offset + from;
      let room = window !== undefined && follows(window, tensor.shard, at) ? wholeUnits(chunkBytes - (at - window.offset)) : 0;
      if (window === undefined || room <= 0) {
        window = { shard: tensor.shard, offset: at, length: 0, parts: [] };
        windows.push(window);
        room = Math.max(unit, wholeUnits(chunkBytes));
      }
      // Cuts stay on multiples of 8 of the tensor: tensors start on such a multiple, and so do windows.
      const to = Math.min(tensor.byteLength, from + room);
      window.parts.push({ tensor, from, to });
      window.length = at - window.offset + (to - from);
      from = to;
    }
  }
  return windows;
}

function follows(window: Window, shard: number, at: number): boolean {
  return window.shard === shard && at - (window.offset + window.length) <= largestGap;
}

/** Reads window after window, the next ones while the consumer works on this one. Reads on their way when it leaves are waited for. */
export async function* streamPieces(
  tensors: readonly GgufTensor[],
  sourceOf: (shard: number) => ByteSource,
  options: StreamOptions,
): AsyncGenerator<TensorPiece> {
  const { chunkBytes = defaultChunkBytes, reads = 2, reuse = false, unitBytes = () => leastUnitBytes, signal } = options;
  if (!Number.isSafeInteger(reads) || reads < 1) throw new ArgumentError('reads', `one read at least must be on its way, got ${reads}`);
  requireMultiple('chunkBytes', chunkBytes);
  const windows = planWindows(tensors, chunkBytes, (tensor) => requireMultiple('unitBytes', unitBytes(tensor)));
  const memory = new SharedMemory(chunkBytes);
  const start = ({ shard, offset, length }: Window): Promise<Uint8Array> => {
    const source = sourceOf(shard);
    const read = reuse && source.readInto !== undefined ? readInto(source, offset, memory.take(length), signal) : source.read(offset, length, signal);
    // Awaited below, unless the consumer leaves first: then its failure concerns nobody.
    read.catch(() => undefined);
    return read;
  };
  const onTheirWay: Promise<Uint8Array>[] = [];
  let begun = 0;
  try {
    for (const [index, window] of windows.entries()) {
      for (const next of windows.slice(begun, index + reads)) {
        onTheirWay.push(start(next));
        begun++;
      }
      const bytes = await onTheirWay.shift();
      if (bytes === undefined) return;
      for (const { tensor, from, to } of window.parts) {
        const at = tensor.offset + from - window.offset;
        yield { tensor, offset: from, bytes: bytes.subarray(at, at + (to - from)) };
      }
      memory.give(bytes);
    }
  } finally {
    await Promise.allSettled(onTheirWay);
  }
}

/** Memory that reads have in turn. */
class SharedMemory {
  readonly #leastBytes: number;
  readonly #made = new Set<ArrayBufferLike>();
  readonly #free: ArrayBufferLike[] = [];

  constructor(leastBytes: number) {
    this.#leastBytes = leastBytes;
  }

  take(byteLength: number): Uint8Array {
    let memory = this.#free.pop();
    if (memory === undefined || memory.byteLength < byteLength) {
      if (memory !== undefined) this.#made.delete(memory);
      memory = new ArrayBuffer(Math.max(this.#leastBytes, byteLength));
      this.#made.add(memory);
    }
    return new Uint8Array(memory, 0, byteLength);
  }

  /** Takes back what `take` gave; bytes from elsewhere stay where they are. */
  give({ buffer }: Uint8Array): void {
    if (this.#made.has(buffer)) this.#free.push(buffer);
  }
}

async function readInto(source: ByteSource, offset: number, target: Uint8Array, signal: AbortSignal | undefined): Promise<Uint8Array> {
  await source.readInto?.(offset, target, signal);
  return target;
}

function requireMultiple(name: string, bytes: number): number {
  if (Number.isSafeInteger(bytes) && bytes >= leastUnitBytes && bytes % leastUnitBytes === 0) return bytes;
  throw new ArgumentError(name, `pieces must have a multiple of ${leastUnitBytes} bytes, ${leastUnitBytes} or more, got ${bytes}`);
}
