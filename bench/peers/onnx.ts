/**
 * The workloads in onnxruntime-node with its WebGPU provider. It runs models, from host to host: one with a chain of n operations is timed beside one with a single operation, and the
 * difference is that of n - 1.
 */

import { chainModel } from './onnx-model.js';
import { type Measured, type Workload, warmUpMs } from './workloads.js';

interface Session {
  run(feeds: Record<string, object>): Promise<Record<string, { readonly data: Float32Array }>>;
  release(): Promise<void>;
}

interface Runtime {
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
  readonly Tensor: new (type: string, data: Float32Array, shape: readonly number[]) => object;
}

export async function measureOnnx(load: (name: string) => Promise<object>, work: Workload): Promise<Measured> {
  const module = (await load('onnxruntime-node')) as { readonly default: Runtime };
  const { InferenceSession, Tensor } = module.default;
  const options = { executionProviders: ['webgpu'], logSeverityLevel: 3 };
  const long = await InferenceSession.create(chainModel(work, 1 + work.repeats), options);
  const short = await InferenceSession.create(chainModel(work, 1), options);
  const timed = async (session: Session): Promise<{ ms: number; first: number }> => {
    const start = performance.now();
    const { y } = await session.run({ one: new Tensor('float32', Float32Array.of(1), [1]) });
    return { ms: performance.now() - start, first: y?.data[0] ?? Number.NaN };
  };
  const { first } = await timed(short);
  for (const start = performance.now(); performance.now() - start < warmUpMs; ) for (const session of [long, short]) await timed(session);
  const times: number[] = [];
  for (let round = 0; round < 5; round++) times.push(((await timed(long)).ms - (await timed(short)).ms) * (1000 / work.repeats));
  times.sort((p, q) => p - q);
  await long.release();
  await short.release();
  return { us: times[2] ?? Number.NaN, least: times[0] ?? Number.NaN, most: times[4] ?? Number.NaN, first };
}
