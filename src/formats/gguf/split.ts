/** Split models: NAME-00001-of-00003.gguf and its companions. */

import { FormatError } from '../../core/errors.js';
import type { SourceLike } from '../source.js';
import type { GgufHeader } from './header.js';
import { describeType } from './values.js';

/** What a shard says about itself. */
export interface ShardInfo {
  /** From 0 on. */
  readonly shard: number;
  readonly count: number;
  /** Tensors of all shards together. */
  readonly tensors: number;
}

/** gguf-split numbers shards with five digits. */
const mostShards = 99_999;

/** The split keys of a file; undefined where it is a whole model. */
export function shardInfo(header: GgufHeader): ShardInfo | undefined {
  const count = splitNumber(header, 'split.count');
  if (count === undefined || count === 0) return undefined;
  const shard = splitNumber(header, 'split.no');
  const tensors = splitNumber(header, 'split.tensors.count');
  if (shard === undefined || tensors === undefined) {
    const key = shard === undefined ? 'split.no' : 'split.tensors.count';
    throw new FormatError('E_SPLIT', `${header.source.name} has split.count but no ${key}`, { key });
  }
  // One shard with the number 0 of 1 is a whole model that went through gguf-split.
  if (count > mostShards || shard >= count)
    throw new FormatError('E_SPLIT', `${header.source.name} says that it is shard ${shard + 1} of ${count}`, { key: 'split.no' });
  return { shard, count, tensors };
}

function splitNumber(header: GgufHeader, key: string): number | undefined {
  const value = header.metadata.get(key);
  if (value === undefined) return undefined;
  if ((value.type === 'u16' || value.type === 'i32' || value.type === 'u32') && value.value >= 0) return value.value;
  const found = value.type === 'array' || value.type === 'string' ? describeType(value) : `${value.type} ${value.value}`;
  throw new FormatError('E_SPLIT', `${header.source.name}: ${key} must be a count, it is ${found}`, { key });
}

export function shardName(base: string, shard: number, count: number): string {
  return `${base}-${String(shard + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`;
}

const shardPattern = /-(\d{5})-of-(\d{5})\.gguf$/;

/** Where the other shards are, given the first. */
export function shardSources(source: SourceLike, first: GgufHeader, { shard, count, tensors }: ShardInfo): SourceLike[] {
  if (count === 1) return [];
  const name = first.source.name;
  if (shard !== 0)
    throw new FormatError('E_SPLIT', `${name} is shard ${shard + 1} of ${count}: open the first one, the others are found by name`, { key: 'split.no' });
  // More shards than tensors would be empty files: no writer makes them, and a hostile one could ask for 99,999 requests.
  if (count > tensors + 1) throw new FormatError('E_SPLIT', `${name} claims ${count} shards for ${tensors} tensors`, { key: 'split.count' });
  const rename = (text: string): string[] => {
    const match = shardPattern.exec(text);
    if (match === null || Number(match[1]) !== 1 || Number(match[2]) !== count) {
      throw new FormatError(
        'E_SPLIT',
        `${name} is the first of ${count} shards, but is not named so (${shardName('NAME', 0, count)}): rename it, or give all shards as a list`,
      );
    }
    return Array.from({ length: count - 1 }, (_, i) => shardName(text.slice(0, match.index), i + 1, count));
  };
  if (typeof source === 'string' && !/^[a-z][a-z0-9+.-]+:/i.test(source)) return rename(source);
  if (typeof source === 'string' || source instanceof URL) {
    const url = new URL(source);
    return rename(url.pathname).map((path) => {
      const other = new URL(url);
      other.pathname = path;
      return other;
    });
  }
  throw new FormatError('E_SPLIT', `${name} is the first of ${count} shards: give all shards as a list`, { key: 'split.count' });
}
