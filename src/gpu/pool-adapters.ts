/** Which of the adapters found a pool takes by itself. */

import type { AdapterEntry } from './adapter.js';

export interface SkippedAdapter {
  /** Index in `GpuDevice.adapters()`, where it has one. */
  readonly adapterIndex?: number;
  readonly name: string;
  readonly backend: string;
  readonly why: string;
}

/** Backends through which a GPU is seen a second time, with less: taken only where there is no other. */
const lesserBackends = ['opengl', 'opengles', 'd3d11'];

/** Every hardware adapter once; software ones where they may be. */
export function usableAdapters(
  adapters: readonly AdapterEntry[],
  software: 'allow' | 'refuse',
): { usable: readonly AdapterEntry[]; skipped: readonly SkippedAdapter[] } {
  const usable: AdapterEntry[] = [];
  const skipped: SkippedAdapter[] = [];
  for (const entry of adapters) {
    const why = reasonToSkip(entry, adapters, usable, software);
    if (why === undefined) usable.push(entry);
    else skipped.push({ adapterIndex: entry.index, name: entry.name, backend: entry.backend, why });
  }
  return { usable, skipped };
}

function reasonToSkip(entry: AdapterEntry, all: readonly AdapterEntry[], taken: readonly AdapterEntry[], software: 'allow' | 'refuse'): string | undefined {
  if (entry.backend === 'null') return 'it computes nothing';
  if (entry.software && software === 'refuse') return "it renders in software: a pool takes it with { software: 'allow' }, or where it is named";
  const lesser = lesserBackends.includes(entry.backend);
  const better = all.find(({ backend, software: cpu }) => cpu === entry.software && backend !== 'null' && !lesserBackends.includes(backend));
  if (lesser && better !== undefined) return `${entry.backend} shows GPUs again that ${better.backend} shows`;
  const same = taken.find(({ name, backend }) => name === entry.name && backend !== entry.backend);
  return same === undefined ? undefined : `it is adapter ${same.index} through another backend (${same.backend})`;
}
