/** Every allocation may be refused. The call that wanted it then says so, the same call works when there is memory again, and nothing stays allocated at the end. */

import { expect, test } from 'vitest';
import { GpuCommandBatch } from '../../src/compute/batch.js';
import { GpuBackend } from '../../src/compute/gpu-backend.js';
import { GpuMatmulCache } from '../../src/compute/matmul-cache/matmul-cache.js';
import { OutOfMemoryError } from '../../src/core/errors.js';
import { resolveSampling } from '../../src/engine/sampler.js';
import { WgslForwardPass } from '../../src/model/forward-pass.js';
import { CpuBackend } from '../../src/runtime/cpu-backend.js';
import { makeDecoder } from '../support/models.js';
import { plainWeights, smallShape as shape } from '../support/plain-decoder.js';
import { syntheticModel } from '../support/synthetic.js';

/** A backend that refuses one allocation. */
class ScarceBackend extends CpuBackend {
  #left = -1;
  #refused = false;

  /** Refuses the allocation `index` of those to come; -1 refuses none. */
  refuse(index: number): void {
    this.#left = index;
    this.#refused = false;
  }

  /** Whether that allocation has been asked for. */
  get refused(): boolean {
    return this.#refused;
  }

  override allocate(...args: Parameters<CpuBackend['allocate']>): ReturnType<CpuBackend['allocate']> {
    if (this.#left-- !== 0) return super.allocate(...args);
    this.#refused = true;
    return Promise.reject(new OutOfMemoryError(`"${args[0]}" is refused`, { requested: args[1], available: 0 }));
  }
}

interface Subject {
  readonly calls: Readonly<Record<string, () => Promise<unknown>>>;
  dispose(): unknown;
}

const ids = Array.from({ length: 40 }, (_, i) => (i * 7) % 48);
const x = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i));

const model = syntheticModel({ dtype: 'q8_0' });
async function decoder(backend: CpuBackend): Promise<Subject> {
  const subject = await makeDecoder(backend, model, { prefillChunk: 40 });
  const draw = { parameters: resolveSampling({ seed: 1 }), prompt: [] };
  const fromStart = (work: () => Promise<unknown>) => (): Promise<unknown> => {
    subject.rewind(0);
    return work();
  };
  return {
    calls: {
      greedy: fromStart(async () => [await subject.nextToken(ids.slice(0, 12)), await subject.continueGreedy()]),
      drawn: fromStart(async () => [await subject.nextDrawn([1, 2], draw), await subject.continueDrawn()]),
      evaluate: fromStart(() => subject.evaluate(ids.slice(0, 5))),
    },
    dispose: () => subject.dispose(),
  };
}

const weights = plainWeights(shape, 1);
async function forwardPass(backend: CpuBackend): Promise<Subject> {
  const subject = await WgslForwardPass.create({ ...shape, contextLength: 64, backend });
  try {
    for (const [name, data] of weights) await subject.uploadWeight(name, data);
  } catch (error) {
    subject.dispose();
    throw error;
  }
  return {
    calls: {
      // A run that asks for larger activations than the one before it.
      model: async () => [await subject.forwardModel(1, 0), await subject.forwardModel(ids, 1)],
      layer: () => subject.forwardLayer(x.subarray(0, 64), 0, 0),
    },
    dispose: () => subject.dispose(),
  };
}

async function cache(backend: CpuBackend): Promise<Subject> {
  const subject = new GpuMatmulCache(backend);
  await subject.uploadWeight('w', x, 8, 32, { type: 'q8_0' });
  return {
    calls: {
      upload: () => subject.uploadWeight('w', x, 8, 32, { type: 'q8_0' }).then(() => subject.weightCount),
      products: () => Promise.all([1, 2, 7].map((m) => subject.matmulCached('w', x, m))),
    },
    dispose: () => subject.dispose(),
  };
}

async function batch(backend: CpuBackend): Promise<Subject> {
  const subject = new GpuCommandBatch(backend);
  const a = subject.upload(x);
  const y = subject.softmax(a);
  const z = subject.relu(y);
  return {
    calls: { kept: () => subject.execute().then(() => subject.read(z)), unkept: () => subject.execute().then(() => subject.read(y)) },
    dispose: () => subject.dispose(),
  };
}

/** Two compiled operations are kept, so that some leave while others fail. */
async function operations(backend: CpuBackend): Promise<Subject> {
  const subject = new GpuBackend({ device: backend, cachedGraphs: 2 });
  const inTurn = async (): Promise<unknown> => [await subject.relu(x), await subject.matmul(x, x, 16, 16, 16), await subject.sum(x)];
  const atOnce = (): Promise<unknown> =>
    Promise.allSettled([subject.relu(x), subject.sigmoid(x), subject.scale(x, 2), subject.relu(x)]).then((results) =>
      results.map((result) => {
        if (result.status === 'rejected') throw result.reason;
        return result.value;
      }),
    );
  return { calls: { inTurn, atOnce }, dispose: () => subject.dispose() };
}

const subjects = { decoder, forwardPass, cache, batch, operations };

/** Calls `work` with the allocation `index` of it refused: its value, or undefined where it was refused and said so. */
async function refusing<T>(backend: ScarceBackend, index: number, work: () => Promise<T>): Promise<T | undefined> {
  backend.refuse(index);
  try {
    const value = await work();
    expect(backend.refused).toBe(false);
    return value;
  } catch (error) {
    expect(error).toBeInstanceOf(OutOfMemoryError);
    return undefined;
  } finally {
    backend.refuse(-1);
  }
}

test.each(Object.entries(subjects))('costs no more than the call: %s', async (_, make) => {
  const backend = new ScarceBackend();
  let subject: Subject | undefined;
  for (let index = 0; subject === undefined; index++) {
    subject = await refusing(backend, index, () => make(backend));
    if (subject === undefined) expect(backend.ledger().bytes).toBe(0);
  }
  let refusals = 0;
  for (const [name, call] of Object.entries(subject.calls)) {
    const wanted = await call();
    for (let index = 0, done = false; !done; index++) {
      const other = await make(backend);
      const work = other.calls[name] as typeof call;
      done = (await refusing(backend, index, work)) !== undefined;
      if (!done) refusals++;
      expect(await work()).toEqual(wanted);
      await other.dispose();
    }
  }
  expect(refusals).toBeGreaterThan(0);
  await subject.dispose();
  expect(backend.ledger().bytes).toBe(0);
  backend.dispose();
});

test('a run of the forward pass that does not fit leaves room for smaller ones', async () => {
  const make = async (backend: CpuBackend): Promise<WgslForwardPass> => {
    const pass = await WgslForwardPass.create({ ...shape, contextLength: 64, backend });
    for (const [name, data] of weights) await pass.uploadWeight(name, data);
    return pass;
  };
  const roomy = new CpuBackend();
  const logits = await (await make(roomy)).forwardModel(1, 0);
  const tight = new CpuBackend({ budgetBytes: roomy.ledger().bytes });
  const pass = await make(tight);
  for (let i = 0; i < 2; i++) {
    await expect(pass.forwardModel(ids, 0)).rejects.toThrow(OutOfMemoryError);
    expect(await pass.forwardModel(1, 0)).toEqual(logits);
  }
  for (const backend of [roomy, tight]) backend.dispose();
});
