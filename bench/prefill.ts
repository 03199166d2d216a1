/**
 * Prefill on a GPU: one run over a prompt, as `generate` makes it, without text. Median of seven runs by the clock, and the time of every kind of step by the device's clock.
 * Arguments: GGUF files, and --rows N for the prompt's tokens (default 2048).
 */

import { openGguf } from '../src/formats/gguf/index.js';
import { GpuDevice } from '../src/gpu/device.js';
import { rewrite } from '../src/graph/rewrite.js';
import { decoderGraph, decoderNames } from '../src/model/decoder-graph.js';
import { describeModel } from '../src/model/describe.js';
import { ropeTable } from '../src/model/rope-table.js';
import { stateWord, stateWords } from '../src/ops/state.js';
import { allocateBanks } from '../src/runtime/arena.js';
import type { Executable, Program, RegionWrite, StepTiming, Storage } from '../src/runtime/backend.js';
import { TensorStore, type TensorWriter } from '../src/runtime/tensors.js';
import { WebGpuBackend } from '../src/runtime/webgpu-backend.js';

export const summary = 'prefill of GGUF models on a GPU, with the time of each kind of step';

const contextLength = 4096;

export async function run(args: readonly string[]): Promise<void> {
  const at = args.indexOf('--rows');
  const rows = at < 0 ? 2048 : Number(args[at + 1]);
  const gpu = await GpuDevice.request();
  console.log(`${gpu.adapterInfo.name}, ${rows} tokens`);
  for (const path of args.filter((_, index) => at < 0 || (index !== at && index !== at + 1))) await measure(gpu, path, rows);
}

interface Prepared {
  readonly program: Program;
  readonly executable: Executable;
  readonly session: Storage;
  readonly compileMs: number;
  dispose(): void;
}

async function measure(gpu: GpuDevice, path: string, rows: number): Promise<void> {
  const backend = new WebGpuBackend(gpu, { owned: false });
  const prepared = await prepare(backend, path, rows);
  const { executable, session } = prepared;
  const state: RegionWrite = { storage: session, offset: 0, bytes: sessionBytes(rows) };
  const once = async (): Promise<number> => {
    const start = performance.now();
    await executable.run([state], [{ storage: session, offset: 0, byteLength: 16 }]);
    return performance.now() - start;
  };
  for (let i = 0; i < 4; i++) await once();
  const times: number[] = [];
  for (let i = 0; i < 7; i++) times.push(await once());
  times.sort((a, b) => a - b);
  const [least = 0, , , median = 0, , , most = 0] = times;
  const { length } = prepared.program.plan.steps;
  console.log(
    `${path}: ${((rows / median) * 1000).toFixed(0)} tok/s; ${median.toFixed(2)} ms (${least.toFixed(2)} to ${most.toFixed(2)}), ${length} dispatches`,
  );
  console.log(`  ${prepared.program.kernels.length} kernels compiled in ${prepared.compileMs.toFixed(0)} ms`);
  await backend.write(session, 0, state.bytes);
  report(await executable.profile());
  prepared.dispose();
  backend.dispose();
}

async function prepare(backend: WebGpuBackend, path: string, rows: number): Promise<Prepared> {
  const file = await openGguf(path);
  const { config, weights } = describeModel(file);
  const { graph } = rewrite(decoderGraph(config, weights, { rows, maxRows: rows, contextLength, cacheType: 'f16', logits: 'next' }));
  const program = backend.program(graph);
  const tensors = new TensorStore(backend);
  for (const node of graph.nodes) if (node.op === 'param' || node.op === 'state') await tensors.allocate(node.params.name, node.type, 'weights');
  const table = ropeTable({ positions: contextLength, rotated: config.rotated, base: config.ropeBase, positionScale: config.ropePositionScale });
  await tensors.write(decoderNames.ropeTable, new Uint8Array(table.buffer));
  let writer: TensorWriter | undefined;
  const names = [...file.tensors.keys()].filter((name) => tensors.get(name) !== undefined);
  for await (const { tensor, offset, bytes } of file.streamTensors(names, {})) {
    if (offset === 0) {
      await writer?.finish();
      writer = tensors.writer(tensor.name);
    }
    await writer?.push(bytes);
  }
  await writer?.finish();
  await file.close();
  const banks = await allocateBanks(backend, [program.plan]);
  const started = performance.now();
  const executable = await program.prepare(tensors.bindings(program.plan, banks, new Map()));
  const compileMs = performance.now() - started;
  const session = tensors.get(decoderNames.session)?.shards[0]?.storage;
  if (session === undefined) throw new Error('the decoder has no session state');
  const dispose = (): void => {
    for (const bank of banks) bank.free();
    tensors.dispose();
  };
  return { program, executable, session, compileMs, dispose };
}

/** The state before a run over a prompt of tokens that differ. */
function sessionBytes(rows: number): Uint8Array {
  const words = new Uint32Array(stateWords(rows));
  words[stateWord.rows] = rows;
  for (let i = 0; i < rows; i++) words[stateWord.ids + i] = (i * 7919 + 13) % 250;
  return new Uint8Array(words.buffer);
}

/** Time by kind of step, over the layers; a profiled step has a pass of its own, which adds some microseconds. */
function report(steps: readonly StepTiming[]): void {
  const kinds = new Map<string, { ns: number; count: number }>();
  for (const { label, ns } of steps) {
    const name = label.replace(/blk\.\d+\./, '');
    const kind = kinds.get(name) ?? { ns: 0, count: 0 };
    kinds.set(name, { ns: kind.ns + ns, count: kind.count + 1 });
  }
  for (const [name, { ns, count }] of [...kinds].sort(([, a], [, b]) => b.ns - a.ns)) {
    console.log(`  ${(ns / 1e6).toFixed(3).padStart(9)} ms  ${name}: ${count} of ${(ns / count / 1e3).toFixed(1)} us`);
  }
}
