/**
 * Which cases an adapter runs. A rasteriser compiles every kernel for tenths of a second to seconds, so the cases are dealt out: each runs on one of the software
 * adapters, as one of the devices that the adapter poses as. All of them run on the CPU, and on a GPU (`npm run test:gpu`, `centella doctor --check`).
 */

import type { AdapterName } from '../../scripts/setup/adapters.mjs';
import { testAdapterName } from './adapter-name.js';

/** Who takes each of four cases: Mesa's compiler needs several times as long as SwiftShader's. */
const turns: readonly AdapterName[] = ['swiftshader', 'lavapipe', 'swiftshader', 'swiftshader'];

/** Of the devices that an adapter poses as, for example by masks: how many there are, and which one this is. */
export interface Way {
  readonly ways: number;
  readonly way: number;
}

export interface Dealing<T> extends Partial<Way> {
  /** Cases that SwiftShader takes because lavapipe compiles them for longer than the rest together. */
  readonly slow?: (item: T) => boolean;
}

/** Whether every adapter runs every case: `CENTELLA_ALL_CASES=1`. */
export const everyCase = process.env['CENTELLA_ALL_CASES'] === '1';

/** For the names of tests. */
export const shareName = everyCase ? 'every case' : "this adapter's share of the cases";

/** The items that one adapter takes. Pure: over all adapters and ways every item is dealt out exactly once. */
export function shareOf<T>(adapter: AdapterName, items: readonly T[], { ways = 1, way = 0, slow = () => false }: Dealing<T> = {}): readonly T[] {
  const slots = turns.length * ways;
  const takes = (owner: AdapterName, index: number): boolean => index % ways === way && turns[Math.floor((index % slots) / ways)] === owner;
  const even = items.filter((item) => !slow(item)).filter((_, index) => takes(adapter, index));
  const heavy = adapter === 'swiftshader' ? items.filter(slow).filter((_, index) => index % ways === way) : [];
  return [...even, ...heavy];
}

/** The share of the adapter that runs this test; everything where every case is asked for. */
export function dealt<T>(items: readonly T[], dealing: Dealing<T> = {}): readonly T[] {
  const name = testAdapterName();
  const share = everyCase || name === 'hardware' ? items : shareOf(name, items, dealing);
  if (share.length === 0) throw new Error(`${items.length} cases leave none for ${name}: they are too few to be dealt out`);
  return share;
}
