/** The same matrix product in other TypeScript libraries, each in a process of its own, from the node_modules folder in COMPUTE_PEERS. */

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

export interface PeerResult {
  readonly library: string;
  readonly tflops?: number;
  readonly error?: string;
}

const libraries = ['@tensorflow/tfjs-backend-webgpu', '@jax-js/jax'] as const;

/** n x n x n in f32, `products` of them chained so that none can be left out; by the clock, read back once. */
export async function runPeers(n: number, products: number): Promise<readonly PeerResult[]> {
  return libraries.map((library) => {
    const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), library, String(n), String(products)], { encoding: 'utf8', timeout: 120_000 });
    const line = child.stdout.trim().split('\n').at(-1) ?? '';
    return line.startsWith('{') ? (JSON.parse(line) as PeerResult) : { library, error: child.stderr.trim().split('\n').at(-1) ?? 'no answer' };
  });
}

/** A library's own calls: what they return is not typed here, because none of them is installed with this project. */
interface Peer {
  start(): Promise<void>;
  /** Multiplies by b / n `products` times and reads one element. */
  multiply(products: number): Promise<void>;
}

type Loose = Record<string, (...args: unknown[]) => unknown>;

async function load(require: NodeJS.Require, name: string): Promise<Loose> {
  return (await import(pathToFileURL(require.resolve(name)).href)) as Loose;
}

async function tfjs(require: NodeJS.Require, a: Float32Array, b: Float32Array, n: number): Promise<Peer> {
  const tf = await load(require, '@tensorflow/tfjs-core');
  await load(require, '@tensorflow/tfjs-backend-webgpu');
  await tf['setBackend']?.('webgpu');
  await tf['ready']?.();
  let x = tf['tensor2d']?.(a, [n, n]) as { dispose(): void };
  const w = tf['tensor2d']?.(b, [n, n]);
  const read = async (): Promise<void> => {
    const element = tf['slice']?.(x, [0, 0], [1, 1]) as { data(): Promise<unknown> } | undefined;
    await element?.data();
  };
  return {
    start: read,
    multiply: async (products) => {
      for (let i = 0; i < products; i++) {
        const next = tf['matMul']?.(x, w) as { dispose(): void };
        x.dispose();
        x = next;
      }
      await read();
    },
  };
}

interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: number[]): JaxArray;
  slice(...indices: number[]): JaxArray;
  data(): Promise<unknown>;
}

async function jax(require: NodeJS.Require, a: Float32Array, b: Float32Array, n: number): Promise<Peer> {
  const library = await load(require, '@jax-js/jax');
  await library['init']?.('webgpu');
  library['defaultDevice']?.('webgpu');
  const np = library['numpy'] as unknown as { array(data: Float32Array): JaxArray; matmul(x: JaxArray, y: JaxArray): JaxArray };
  let x = np.array(a).reshape([n, n]);
  const w = np.array(b).reshape([n, n]);
  const read = async (): Promise<void> => {
    await x.ref.slice(0, 0).data();
  };
  return {
    start: read,
    multiply: async (products) => {
      for (let i = 0; i < products; i++) x = np.matmul(x, w.ref);
      await read();
    },
  };
}

async function measure(library: string, n: number, products: number): Promise<PeerResult> {
  const dawn = (await import('webgpu')) as { create(flags: string[]): GPU; globals: object };
  // Held for the life of the process: Dawn dies when it is collected.
  const gpu = dawn.create([]);
  Object.assign(globalThis, dawn.globals, { heldGpu: gpu });
  Object.defineProperty(globalThis, 'navigator', { value: { gpu, userAgent: 'node', language: 'en' }, configurable: true, writable: true });
  const require = createRequire(pathToFileURL(`${process.env['COMPUTE_PEERS'] ?? 'node_modules'}/`));
  const a = Float32Array.from({ length: n * n }, (_, i) => Math.sin(i));
  const b = Float32Array.from({ length: n * n }, (_, i) => Math.cos(i) / n);
  const peer = await (library === '@jax-js/jax' ? jax : tfjs)(require, a, b, n);
  await peer.start();
  await peer.multiply(3);
  const samples: number[] = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    await peer.multiply(products);
    samples.push(performance.now() - start);
  }
  const ms = samples.sort((x, y) => x - y)[2] ?? Number.NaN;
  return { library, tflops: (2 * n ** 3 * products) / ms / 1e9 };
}

const [library, n, products] = process.argv.slice(2);
if (process.argv[1] === fileURLToPath(import.meta.url) && library !== undefined) {
  console.log(JSON.stringify(await measure(library, Number(n), Number(products))));
  process.exit(0);
}
