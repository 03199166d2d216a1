/** The workloads in @tensorflow/tfjs-core with its WebGPU backend. What it returns is not typed here: it is not installed with this project. */

import { inputsOf, type Prepared, shapesOf, type Workload } from './workloads.js';

type Loose = Record<string, (...args: unknown[]) => unknown>;

interface Tensor {
  dispose(): void;
  data(): Promise<Float32Array>;
}

export async function prepareTfjs(load: (name: string) => Promise<object>, work: Workload): Promise<Prepared> {
  const tf = (await load('@tensorflow/tfjs-core')) as Loose;
  await load('@tensorflow/tfjs-backend-webgpu');
  if ((await tf['setBackend']?.('webgpu')) !== true) throw new Error('its WebGPU backend does not start');
  await tf['ready']?.();
  const call = (name: string, ...args: unknown[]): Tensor => {
    const method = tf[name];
    if (method === undefined) throw new Error(`it has no ${name}`);
    return method(...args) as Tensor;
  };
  const inputs = inputsOf(work).map((data, input) => {
    const shape = shapesOf(work)[input] ?? [];
    const tensor = call('tensor', data, [...shape]);
    // Its convolutions on WebGPU take channels last.
    return work.op === 'conv2d' ? call('transpose', tensor, input === 0 ? [0, 2, 3, 1] : [2, 3, 1, 0]) : tensor;
  });
  const once = (): Tensor => {
    switch (work.op) {
      case 'matmul':
        return call('matMul', ...inputs);
      case 'add':
        return call('add', ...inputs);
      case 'sum':
        return call('sum', ...inputs);
      case 'softmax':
        return call('softmax', ...inputs);
      case 'conv2d':
        return call('conv2d', ...inputs, 1, 'same', 'NHWC');
    }
  };
  return {
    repeat: async (repeats) => {
      const results = Array.from({ length: repeats }, once);
      const last = results.at(-1);
      if (last === undefined) throw new Error('nothing was run');
      const element = call('slice', call('reshape', last, [-1]), [0], [1]);
      const [first = Number.NaN] = await element.data();
      for (const tensor of [...results, element]) tensor.dispose();
      return first;
    },
  };
}
