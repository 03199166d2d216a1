/**
 * Products with cached weights on the best device here. First every combination of rows, K, N and weight type, 4,096 outputs of each against f64; then the time of one row by a weight
 * of 4096 x 4096, from host input to host output, beside the bare round trip of the same machine: write 16 KiB, dispatch a copy, read 16 KiB.
 * Arguments: --only=product or --only=time does half; --device=webgpu or cpu; --rounds=N (default 400); --type=f32,q8_0,...: of these weights alone (default: every type in the products,
 * f32, f16, q8_0 and q4_k in the times), so that several processes can share the products.
 * Ends with status 1 where an output is wrong.
 */

import { GpuMatmulCache } from '../src/compute/matmul-cache/index.js';
import { byteLengthOf, type DType, dtypes } from '../src/core/dtype.js';
import { GraphBuilder } from '../src/graph/builder.js';
import { randomFloats, randomWeight, seededRandom } from '../src/ops/cases/weight-data.js';
import { dequantize } from '../src/quant/index.js';
import type { Backend } from '../src/runtime/backend.js';
import { CompiledGraph } from '../src/runtime/compiled-graph.js';
import { openBackend } from '../src/runtime/select.js';
import { type BenchResult, type Figure, resultOf } from './support/result.js';

export const summary = 'cached matrix products: all shapes against f64, and one row host to host';

const types = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k'] as const satisfies readonly DType[];
const rowCounts = [1, 2, 3, 4, 5, 16, 17, 64, 257];
const depths = [1, 3, 31, 64, 257, 1536];
const widths = [1, 63, 64, 65, 1000, 70_000];
const samples = 4096;

interface Failure {
  readonly product: string;
  readonly error: string;
}

interface Timing {
  readonly label: string;
  readonly medianMs: number;
  readonly p10Ms: number;
  readonly p90Ms: number;
  /** Median as a multiple of the bare round trip's. */
  readonly ratio: number;
}

export async function run(args: readonly string[]): Promise<BenchResult> {
  const option = (name: string): string | undefined => args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
  const device = option('device');
  const backend = await openBackend({ device: device === 'cpu' || device === 'webgpu' ? device : 'auto', tuning: 'none' });
  const only = option('only');
  const cache = new GpuMatmulCache(backend);
  const chosen = option('type')?.split(',').map(typeOf);
  const product = only === 'time' ? undefined : await checkAll(cache, chosen ?? types);
  const timed = chosen ?? (['f32', 'f16', 'q8_0', 'q4_k'] as const);
  const times = only === 'product' ? undefined : await measure(backend, cache, Number(option('rounds') ?? 400), timed);
  const report = {
    backend: backend.kind,
    name: backend.name,
    reason: backend.reason,
    checks: backend.checks,
    ...(product ? { product } : {}),
    ...(times ? { times } : {}),
  };
  print(report);
  cache.dispose();
  backend.dispose();
  if (product !== undefined && product.failures.length > 0) process.exit(1);
  const figures = (times ?? []).map(
    ({ label, medianMs, p10Ms, p90Ms }): Figure => ({ name: label, value: medianMs, least: p10Ms, most: p90Ms, unit: 'ms', checks: report.checks }),
  );
  return resultOf(backend, figures);
}

/** @throws RangeError for a type that is none of `types`: nothing measured must not look like nothing wrong. */
function typeOf(name: string): DType {
  const type = types.find((known) => known === name);
  if (type === undefined) throw new RangeError(`--type: ${types.join(', ')} are known, got ${name}`);
  return type;
}

async function checkAll(
  cache: GpuMatmulCache,
  chosen: readonly DType[],
): Promise<{ readonly products: number; readonly outputs: number; readonly worst: number; readonly failures: readonly Failure[] }> {
  const failures: Failure[] = [];
  let [products, outputs, worst] = [0, 0, 0];
  for (const type of chosen) {
    for (const k of depths.filter((depth) => depth % dtypes[type].block === 0)) {
      for (const n of widths) {
        const random = seededRandom(k * 31 + n);
        const { bytes } = randomWeight(type, n, k, random);
        await cache.uploadWeight('w', bytes, n, k, { type });
        for (const m of rowCounts) {
          const x = randomFloats(m * k, random);
          const y = await cache.matmulCached('w', x, m);
          const found = compare({ x, y, bytes, type, m, k, n, rounds: cache.backend.kind === 'cpu' });
          products++;
          outputs += found.compared;
          worst = Math.max(worst, found.worst);
          if (found.worst > 1) failures.push({ product: `m ${m}, K ${k}, N ${n}, ${type}`, error: found.where });
        }
      }
      console.error(`${type} K ${k}: ${products} products so far, worst error ${worst.toFixed(3)} of what is accepted, ${failures.length} wrong`);
    }
  }
  cache.removeWeight('w');
  return { products, outputs, worst, failures };
}

interface Product {
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly bytes: Uint8Array;
  readonly type: DType;
  readonly m: number;
  readonly k: number;
  readonly n: number;
  /** The CPU backend rounds activations of packed weights to 16 bits. */
  readonly rounds: boolean;
}

/** Samples against f64. Accepted: 1e-6 of the sum of the absolute terms, and six standard deviations of what rounding adds. */
function compare({ x, y, bytes, type, m, k, n, rounds }: Product): { readonly worst: number; readonly where: string; readonly compared: number } {
  const step = rounds && dtypes[type].block > 1 ? x.reduce((max, value) => Math.max(max, Math.abs(value)), 0) / 32_767 : 0;
  const rowBytes = byteLengthOf(type, k);
  const count = Math.min(samples, m * n);
  let [worst, where] = [0, ''];
  for (let i = 0; i < count; i++) {
    // Evenly spread over the weight's rows; all outputs where there are no more.
    const at = Math.floor((i * m * n) / count);
    const o = Math.floor(at / m);
    const t = count === m * n ? at % m : (i * 7919) % m;
    const w = dequantize(type, bytes.subarray(o * rowBytes, (o + 1) * rowBytes));
    let [sum, terms, squares] = [0, 0, 0];
    for (let j = 0; j < k; j++) {
      const term = (x[t * k + j] ?? 0) * (w[j] ?? 0);
      sum += term;
      terms += Math.abs(term);
      squares += (w[j] ?? 0) ** 2;
    }
    const got = y[t * n + o] ?? Number.NaN;
    const error = Math.abs(got - sum) / (1e-6 * terms + 6 * step * Math.sqrt(squares / 12) + Number.MIN_VALUE);
    if (!(error <= worst)) [worst, where] = [Number.isNaN(error) ? Number.POSITIVE_INFINITY : error, `[${t}, ${o}]: ${got} instead of ${sum}`];
  }
  return { worst, where, compared: count };
}

/** One row by 4096 x 4096, the variants in turn in every round, so that what else the machine does hits them alike. */
async function measure(backend: Backend, cache: GpuMatmulCache, rounds: number, timed: readonly DType[]): Promise<readonly Timing[]> {
  const size = 4096;
  const random = seededRandom(1);
  const x = randomFloats(size, random);
  const output = new Float32Array(size);
  const bare = await roundTrip(backend, size);
  const calls: (readonly [string, () => Promise<unknown>])[] = [['bare round trip', () => bare.run({ x })]];
  for (const type of timed) {
    const { bytes } = randomWeight(type, size, size, random);
    await cache.uploadWeight(type, bytes, size, size, { type });
    calls.push([`m 1, 4096 x 4096, ${type}`, () => cache.matmulCached(type, x, 1, { output })]);
  }
  const times = calls.map((): number[] => []);
  for (let round = -20; round < rounds; round++) {
    for (const [index, [, call]] of calls.entries()) {
      const start = performance.now();
      await call();
      if (round >= 0) times[index]?.push(performance.now() - start);
    }
  }
  bare.dispose();
  const base = at(times[0] ?? [], 0.5);
  return calls.map(([label], index) => {
    const list = times[index] ?? [];
    const medianMs = at(list, 0.5);
    return { label, medianMs, p10Ms: at(list, 0.1), p90Ms: at(list, 0.9), ratio: medianMs / base };
  });
}

/** Writes `size` numbers, negates them in one dispatch, reads them back. */
function roundTrip(backend: Backend, size: number): Promise<CompiledGraph> {
  const g = new GraphBuilder();
  g.output('y', g.unary('neg', g.input('x', { dtype: 'f32', shape: [size] })));
  return CompiledGraph.compile(g.build(), backend);
}

function at(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN;
}

function print({
  name,
  checks,
  product,
  times,
}: {
  name: string;
  checks: string;
  product?: Awaited<ReturnType<typeof checkAll>>;
  times?: readonly Timing[];
}): void {
  console.error(`${name}, ${checks}`);
  if (product !== undefined) {
    console.error(
      `${product.products} products, ${product.outputs} outputs: worst error ${product.worst.toFixed(3)} of what is accepted, ${product.failures.length} wrong`,
    );
    for (const failure of product.failures) console.error(`  ${failure.product}: ${failure.error}`);
  }
  for (const { label, medianMs, p10Ms, p90Ms, ratio } of times ?? []) {
    console.error(`${label.padEnd(28)} ${medianMs.toFixed(4)} ms (${p10Ms.toFixed(4)} to ${p90Ms.toFixed(4)})  ${ratio.toFixed(2)} of the bare round trip`);
  }
}
