/**
 * Products of square matrices over the GPUs of a pool, beside the same on its first GPU alone, and with one GPU lost on purpose in the middle.
 *
 * An item is one number f: y = sum((a + f) b) of two n x n matrices, which the host knows exactly from the sums of a's columns and b's rows. a and b are uploaded once to each device; an item
 * brings one number and takes one back. Nothing else crosses the bus, so that the figure is that of the products.
 *
 * Arguments: --n=4096, --items=64, --rounds=5; --devices=2 opens that many on each adapter; --software takes software adapters too.
 */

import { GpuCommandBatch } from '../src/compute/batch.js';
import type { GpuDevice } from '../src/gpu/device.js';
import { GpuDevicePool, type PoolReport } from '../src/gpu/pool.js';
import { BenchArgs } from './support/args.js';
import { type BenchResult, type Figure, formatFigure, formatNumber, spread } from './support/result.js';

export const summary = 'matrix products over all GPUs beside one, and the loss of a GPU in the middle';

interface Operands {
  readonly n: number;
  readonly a: Float32Array;
  readonly b: Float32Array;
  /** The sum over every product's elements for f = 0, what it grows by with f, and the sum of the absolute terms, all in f64. */
  readonly base: number;
  readonly slope: number;
  readonly terms: number;
}

/** The plan of one item on one device; used by one item at a time. */
interface Station {
  readonly batch: GpuCommandBatch;
  run(f: number): Promise<number>;
}

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['software'], values: ['n', 'items', 'rounds', 'devices'] });
  const [n, items, rounds] = [known.count('n', 4096), known.count('items', 64), known.count('rounds', 5)];
  const all = await GpuDevicePool.request({ devicesPerAdapter: known.count('devices', 1), software: known.flag('software') ? 'allow' : 'refuse' });
  const names = printed(all.report);
  const [first] = all;
  if (first === undefined || all.size < 2) throw new Error(`the pool has ${all.size} device: two or more are compared (--devices=2 opens two on one adapter)`);
  const one = await GpuDevicePool.request({ devices: [first] });
  const work = new Work(operandsOf(n), items);
  const figures: Figure[] = [];
  for (const perDevice of [1, 2]) {
    const { alone, together } = await work.compare(one, all, perDevice, rounds);
    const [a, b] = [spread(alone), spread(together)];
    const name = (devices: number): string => `${items} products of ${n} over ${devices} GPU${devices === 1 ? '' : 's'}, ${perDevice} at a time on each`;
    const details = { ratioToOne: b.value / a.value, teraflops: (2 * n ** 3 * items) / b.value / 1e9, devices: names };
    const common = { unit: 'ms', checks: first.checks } as const;
    const own: readonly Figure[] = [
      { name: name(1), ...a, ...common },
      { name: name(all.size), ...b, ...common, details },
    ];
    for (const figure of own) console.error(`${figure.name}: ${formatFigure(figure)}`);
    console.error(`  ${formatNumber(details.ratioToOne)} of one GPU's time, ${formatNumber(details.teraflops)} TFLOP/s together`);
    figures.push(...own);
  }
  const loss = await work.survive(all);
  console.error(`one device lost at item ${loss.at}: ${loss.right} of ${items} results right, ${loss.calls} calls, devices ${loss.states.join(', ')}`);
  figures.push({
    name: `right results of ${items}, one of ${all.size} GPUs lost in the middle`,
    value: loss.right,
    unit: 'count',
    checks: first.checks,
    details: loss,
  });
  work.dispose();
  one.dispose();
  all.dispose();
  if (loss.right !== items) throw new Error(`${items - loss.right} items were lost`);
  return { adapter: `${names.length} devices: ${[...new Set(all.report.devices.map(({ name }) => name))].join(', ')}`, figures };
}

/** Says what the pool has and what not, and why; the devices' names. */
function printed({ devices, skipped, notes }: PoolReport): readonly string[] {
  const names = devices.map(({ name, pciAddress }) => (pciAddress === undefined ? name : `${name} at ${pciAddress}`));
  for (const { index, reason } of devices) console.error(`device ${index}: ${names[index]}, ${reason}`);
  for (const { name, why } of skipped) console.error(`left out: ${name}: ${why}`);
  for (const note of notes) console.error(note);
  return names;
}

class Work {
  readonly #operands: Operands;
  readonly #factors: readonly number[];
  /** Idle stations of each device. */
  readonly #idle = new Map<GpuDevice, Station[]>();
  readonly #stations: Station[] = [];

  constructor(operands: Operands, items: number) {
    this.#operands = operands;
    this.#factors = Array.from({ length: items }, (_, item) => (item + 1) / items);
  }

  /** Milliseconds of whole maps, turn by turn on both pools, after one each to warm up. Every result is checked. */
  async compare(one: GpuDevicePool, all: GpuDevicePool, perDevice: number, rounds: number): Promise<{ alone: readonly number[]; together: readonly number[] }> {
    const times = { alone: [] as number[], together: [] as number[] };
    for (let round = 0; round <= rounds; round++) {
      for (const [kind, pool] of [['alone', one] as const, ['together', all] as const]) {
        const start = performance.now();
        const results = await pool.map(this.#factors, (f, device) => this.#apply(device, f), { perDevice });
        const ms = performance.now() - start;
        if (this.#right(results) !== results.length) throw new Error(`${results.length - this.#right(results)} of ${results.length} results are wrong`);
        if (round > 0) times[kind].push(ms);
      }
    }
    return times;
  }

  /** One map in whose middle the last device is destroyed, with its work under way. */
  async survive(pool: GpuDevicePool): Promise<{ at: number; right: number; calls: number; states: readonly string[] }> {
    const [at, last] = [Math.floor(this.#factors.length / 2), pool.size - 1];
    let calls = 0;
    const results = await pool.map(this.#factors, (f, device, { index, deviceIndex }) => {
      calls++;
      const result = this.#apply(device, f);
      if (index >= at && deviceIndex === last) device.device.destroy();
      return result;
    });
    return { at, right: this.#right(results), calls, states: pool.report.devices.map(({ state }) => state) };
  }

  dispose(): void {
    for (const { batch } of this.#stations) batch.dispose();
  }

  async #apply(device: GpuDevice, f: number): Promise<number> {
    const idle = this.#idle.get(device) ?? [];
    this.#idle.set(device, idle);
    const station = idle.pop() ?? this.#build(device);
    const result = await station.run(f);
    idle.push(station);
    return result;
  }

  #build(device: GpuDevice): Station {
    const { n, a, b } = this.#operands;
    const batch = new GpuCommandBatch(device);
    const factor = batch.upload(Float32Array.of(0));
    const product = batch.matmul(batch.add(batch.upload(a), factor), batch.upload(b), n, n, n);
    const total = batch.sum(product);
    const station: Station = {
      batch,
      run: async (f) => {
        batch.update(factor, Float32Array.of(f));
        await batch.execute();
        const [sum = Number.NaN] = await batch.read(total);
        return sum;
      },
    };
    this.#stations.push(station);
    return station;
  }

  /** How many results are the host's, within what rounding to f32 may add to a sum of n^2 elements. */
  #right(results: readonly number[]): number {
    const { base, slope, terms } = this.#operands;
    return results.filter((result, item) => Math.abs(result - (base + slope * (this.#factors[item] ?? 0))) <= 1e-6 * terms).length;
  }
}

/** Matrices of which the sum of the product is far from 0, so that a wrong element shows. */
function operandsOf(n: number): Operands {
  const a = Float32Array.from({ length: n * n }, (_, i) => ((i * 7919) % 1009) / 1009);
  const b = Float32Array.from({ length: n * n }, (_, i) => ((i * 104_729) % 997) / 997 / n);
  const columns = new Float64Array(n);
  a.forEach((value, i) => {
    columns[i % n] = (columns[i % n] ?? 0) + value;
  });
  const rows = Float64Array.from({ length: n }, (_, k) => b.subarray(k * n, (k + 1) * n).reduce((sum, value) => sum + value, 0));
  const base = rows.reduce((sum, value, k) => sum + value * (columns[k] ?? 0), 0);
  const slope = n * rows.reduce((sum, value) => sum + value, 0);
  return { n, a, b, base, slope, terms: base + slope };
}
