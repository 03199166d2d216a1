/**
 * Eigendecomposition of random symmetric matrices, host to host: round-robin Jacobi in f32 on the default GPU (a software one where there is no other) against
 * cyclic Jacobi in f64 on the CPU. Prints time, sweeps, what is left off the diagonal, and the largest |A v - lambda v| of 16 columns over the largest
 * |lambda|. Arguments: sizes (default 256 512 1000); `--no-cpu` leaves the CPU out.
 */

import { type EigenResult, symmetricEigen } from '../src/compute/eigen.js';
import { GpuDevice } from '../src/gpu/device.js';
import { seededRandom } from '../src/ops/cases/weight-data.js';
import type { Backend } from '../src/runtime/backend.js';
import { CpuBackend } from '../src/runtime/cpu-backend.js';
import { WebGpuBackend } from '../src/runtime/webgpu-backend.js';

export const summary = 'eigendecomposition: GPU against CPU';

function symmetric(n: number): Float32Array {
  const random = seededRandom(n);
  const matrix = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) {
      const value = random() * 2 - 1;
      matrix[i * n + j] = value;
      matrix[j * n + i] = value;
    }
  }
  return matrix;
}

/** In parts of the largest |lambda|. */
function equationError(matrix: Float32Array, n: number, { values, vectors }: EigenResult): number {
  let worst = 0;
  for (let column = 0; column < n; column += Math.ceil(n / 16)) {
    for (let row = 0; row < n; row++) {
      let sum = -(values[column] ?? 0) * (vectors[row * n + column] ?? 0);
      for (let k = 0; k < n; k++) sum += (matrix[row * n + k] ?? 0) * (vectors[k * n + column] ?? 0);
      worst = Math.max(worst, Math.abs(sum));
    }
  }
  return worst / values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** The best of `rounds`. */
async function measure(name: string, backend: Backend, n: number, rounds: number): Promise<void> {
  const matrix = symmetric(n);
  let best = Number.POSITIVE_INFINITY;
  let result: EigenResult | undefined;
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    result = await symmetricEigen(backend, matrix, n, { sorted: 'descending' });
    best = Math.min(best, performance.now() - start);
  }
  if (result === undefined) return;
  const { backend: ran, sweeps, residual, converged } = result;
  const errors = `residual ${residual.toExponential(1)}, |A v - lambda v| ${equationError(matrix, n, result).toExponential(1)}`;
  console.log(`n = ${n}, ${name} (${ran}): ${best.toFixed(1)} ms, ${sweeps} sweeps${converged ? '' : ', not converged'}, ${errors}`);
}

export async function run(args: readonly string[]): Promise<void> {
  const sizes = args.filter((arg) => !arg.startsWith('--')).map(Number);
  const gpu = new WebGpuBackend(await GpuDevice.request());
  const cpu = new CpuBackend();
  for (const n of sizes.length > 0 ? sizes : [256, 512, 1000]) {
    await measure(gpu.name, gpu, n, 3);
    if (!args.includes('--no-cpu')) await measure('CPU', cpu, n, 1);
  }
  gpu.dispose();
  cpu.dispose();
}
