/** Counts WebGPU calls on a device: the proof that a steady state makes nothing and submits once. */

const deviceCalls = [
  'createBuffer',
  'createBindGroup',
  'createBindGroupLayout',
  'createPipelineLayout',
  'createShaderModule',
  'createComputePipeline',
  'createComputePipelineAsync',
  'createQuerySet',
  'createCommandEncoder',
] as const;
const queueCalls = ['submit', 'writeBuffer', 'onSubmittedWorkDone'] as const;

export type CountedCall = (typeof deviceCalls)[number] | (typeof queueCalls)[number];

export interface CallCounter {
  /** Calls since the start or the last `reset`. */
  readonly counts: Readonly<Record<CountedCall, number>>;
  /** Calls that made an object that lives on; command encoders are not among them. */
  readonly created: number;
  reset(): void;
  /** Puts the device's own methods back. */
  stop(): void;
}

type Method = (...args: readonly unknown[]) => unknown;

/** Wraps the methods of this device and its queue; every holder of the same objects is counted. */
export function countCalls(device: GPUDevice, queue: GPUQueue = device.queue): CallCounter {
  const counts = Object.fromEntries([...deviceCalls, ...queueCalls].map((name) => [name, 0])) as Record<CountedCall, number>;
  wrap(device, deviceCalls, counts);
  wrap(queue, queueCalls, counts);
  return {
    counts,
    get created() {
      return deviceCalls.reduce((sum, name) => (name === 'createCommandEncoder' ? sum : sum + counts[name]), 0);
    },
    reset() {
      for (const name of [...deviceCalls, ...queueCalls]) counts[name] = 0;
    },
    stop() {
      for (const name of deviceCalls) Reflect.deleteProperty(device, name);
      for (const name of queueCalls) Reflect.deleteProperty(queue, name);
    },
  };
}

// Own properties hide the prototype's methods; deleting them brings those back.
function wrap(target: object, names: readonly CountedCall[], counts: Record<CountedCall, number>): void {
  for (const name of names) {
    const original = Reflect.get(target, name) as Method;
    Object.defineProperty(target, name, {
      configurable: true,
      value(this: unknown, ...args: readonly unknown[]) {
        counts[name]++;
        return Reflect.apply(original, target, args);
      },
    });
  }
}
