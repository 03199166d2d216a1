/** The workloads in @jax-js/jax on WebGPU. What it returns is not typed here: it is not installed with this project. */

import { inputsOf, type Prepared, shapesOf, type Workload } from './workloads.js';

interface JaxArray {
  /** Every use takes a reference, which the called function gives back. */
  readonly ref: JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  slice(...indices: unknown[]): JaxArray;
  data(): Promise<Float32Array>;
  blockUntilReady(): Promise<unknown>;
  dispose(): void;
}

type Functions = Record<string, (...args: unknown[]) => JaxArray>;

export async function prepareJax(load: (name: string) => Promise<object>, work: Workload): Promise<Prepared> {
  const jax = (await load('@jax-js/jax')) as Record<string, unknown>;
  await (jax['init'] as (device: string) => Promise<unknown>)('webgpu');
  (jax['defaultDevice'] as (device: string) => unknown)('webgpu');
  const call = (module: string, name: string, ...args: unknown[]): JaxArray => {
    const found = (jax[module] as Functions | undefined)?.[name];
    if (found === undefined) throw new Error(`it has no ${module}.${name}`);
    return found(...args);
  };
  const inputs = inputsOf(work).map((data, input) => call('numpy', 'array', data).reshape(shapesOf(work)[input] ?? []));
  await Promise.all(inputs.map((input) => input.ref.blockUntilReady()));
  const once = (): JaxArray => {
    const args = inputs.map(({ ref }) => ref);
    switch (work.op) {
      case 'matmul':
        return call('numpy', 'matmul', ...args);
      case 'add':
        return call('numpy', 'add', ...args);
      case 'sum':
        return call('numpy', 'sum', ...args);
      case 'softmax':
        return call('nn', 'softmax', ...args, -1);
      case 'conv2d':
        return call('lax', 'convGeneralDilated', ...args, [1, 1], 'SAME');
    }
  };
  return {
    repeat: async (repeats) => {
      const results = Array.from({ length: repeats }, once);
      // It computes what is asked for: without this, results that nobody reads would cost nothing.
      await Promise.all(results.map((result) => result.blockUntilReady()));
      const last = results.pop();
      for (const result of results) result.dispose();
      if (last === undefined) throw new Error('nothing was run');
      const [first = Number.NaN] = work.op === 'sum' ? await last.data() : await last.reshape([-1]).slice([0, 1]).data();
      return first;
    },
  };
}
