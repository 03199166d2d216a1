import { ArgumentError, FormatError } from '../../core/errors.js';
import { openSource } from '../open-source.js';
import type { ByteSource, SourceLike } from '../source.js';
import type { UrlOptions } from '../url-source.js';
import { GgufFile } from './file.js';
import { type GgufHeader, type GgufTensor, readHeader } from './header.js';
import { defaultGgufLimits, type GgufLimits } from './limits.js';
import { type ShardInfo, shardInfo, shardSources } from './split.js';

/** A model: one file, or the list of all shards of a split one. */
export type GgufSource = SourceLike | readonly SourceLike[];

/** What may be opened, and how. */
export interface OpenGgufOptions extends UrlOptions {
  readonly limits?: Partial<GgufLimits> | undefined;
}

/**
 * Opens a GGUF model (version 2 or 3, little-endian): reads the header in one pass and checks it whole. For a split model give the first shard's path or URL (the
 * others are found by name), or a list of all shards.
 *
 * Throws `FormatError` with a code, the byte offset and the key or tensor for a malformed file; `CentellaError` E_IO where bytes cannot be had; `AbortedError`.
 */
export async function openGguf(source: GgufSource, options: OpenGgufOptions = {}): Promise<GgufFile> {
  const limits = { ...defaultGgufLimits, ...options.limits };
  const opened: ByteSource[] = [];
  try {
    const headers: GgufHeader[] = [];
    const open = async (one: SourceLike): Promise<void> => {
      const bytes = await openSource(one, options);
      opened.push(bytes);
      headers.push(await readHeader(bytes, limits, options.signal));
    };
    for (const one of isList(source) ? source : [source]) await open(one);
    const first = headers[0];
    if (first === undefined) throw new ArgumentError('source', 'a split model is a list of its files, in any order, got an empty list');
    const info = shardInfo(first);
    if (headers.length === 1 && info !== undefined && !isList(source)) {
      for (const other of shardSources(source, first, info)) {
        await open(other).catch((cause: unknown) => {
          if (cause instanceof FormatError || options.signal?.aborted) throw cause;
          throw new FormatError(
            'E_SPLIT',
            `${first.source.name} is shard 1 of ${info.count}, but ${String(other)} cannot be opened: put all shards in one place`,
            { cause },
          );
        });
      }
    }
    const shards = joinShards(headers);
    return new GgufFile(shards, tensorsOf(shards));
  } catch (error) {
    await Promise.all(opened.map((bytes) => bytes.close()));
    throw error;
  }
}

function isList(source: GgufSource): source is readonly SourceLike[] {
  return Array.isArray(source);
}

/** The shards in their order, which must be complete; a single file as it is. */
function joinShards(headers: readonly GgufHeader[]): [GgufHeader, ...GgufHeader[]] {
  const infos = headers.map((header) => ({ header, info: shardInfo(header) }));
  const [first, ...rest] = infos;
  if (first === undefined) throw new ArgumentError('source', 'a split model is a list of its files, in any order, got an empty list');
  if (first.info === undefined && rest.length === 0) return [first.header];
  const { count, tensors } = infos.find(({ info }) => info !== undefined)?.info ?? { count: 1, tensors: 0 };
  const ordered: GgufHeader[] = [];
  for (let shard = 0; shard < count; shard++) {
    const matches = infos.filter(({ info }) => info?.shard === shard);
    const match = matches[0];
    if (match === undefined || matches.length > 1) {
      throw new FormatError(
        'E_SPLIT',
        `${first.header.source.name}: the model has ${count} shards; shard ${shard + 1} is ${match ? 'there twice' : 'missing'}`,
      );
    }
    ordered.push(match.header);
  }
  for (const { header, info } of infos) checkShard(header, info, count, tensors);
  const found = headers.reduce((sum, header) => sum + header.tensors.length, 0);
  if (found !== tensors) {
    throw new FormatError('E_SPLIT', `${first.header.source.name}: split.tensors.count is ${tensors}, but the ${count} shards have ${found} tensors`, {
      key: 'split.tensors.count',
    });
  }
  const [head, ...tail] = ordered;
  return head === undefined ? [first.header] : [head, ...tail];
}

function checkShard(header: GgufHeader, info: ShardInfo | undefined, count: number, tensors: number): void {
  if (info === undefined)
    throw new FormatError('E_SPLIT', `${header.source.name} is not a shard of a split model: it has no split.count`, { key: 'split.count' });
  if (info.count !== count)
    throw new FormatError('E_SPLIT', `${header.source.name} belongs to ${info.count} shards, the others to ${count}`, { key: 'split.count' });
  if (info.tensors !== tensors) {
    throw new FormatError('E_SPLIT', `${header.source.name} says that the shards have ${info.tensors} tensors in all, another says ${tensors}`, {
      key: 'split.tensors.count',
    });
  }
  if (info.shard >= count) throw new FormatError('E_SPLIT', `${header.source.name} is shard ${info.shard + 1} of ${count}`, { key: 'split.no' });
}

/** All tensors by name, numbered by the order of the shards. */
function tensorsOf(shards: readonly GgufHeader[]): ReadonlyMap<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  for (const [shard, header] of shards.entries()) {
    for (const tensor of header.tensors) {
      if (tensors.has(tensor.name))
        throw new FormatError('E_NAME', `${header.source.name}: the tensor ${tensor.name} is in another shard too`, { tensor: tensor.name });
      tensors.set(tensor.name, { ...tensor, shard });
    }
  }
  return tensors;
}
