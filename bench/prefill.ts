/**
 * Prefill on a GPU: one run over a prompt, as `generate` makes it, without text. Median of the runs by the clock, and the time of every kind of step by the device's clock.
 * Arguments: GGUF files, --synthetic=NAME:MIX; --rows=N,... for the prompt's tokens (default 2048), --runs=N (default 7), --checked, --peers: the same files by the peers that are installed.
 * --without=subgroup-matrix,f16,subgroups,packed-dot: as a device that lacks them; --activations=int8|f32: what packed weights meet where there are no matrices.
 */

import { openGguf } from '../src/formats/gguf/index.js';
import { GpuDevice } from '../src/gpu/device.js';
import { rewrite } from '../src/graph/rewrite.js';
import type { ActivationChoice } from '../src/kernels/decode/select.js';
import { decoderGraph, decoderNames } from '../src/model/decoder-graph.js';
import { describeModel } from '../src/model/describe.js';
import { ropeTable } from '../src/model/rope-table.js';
import { stateWord, stateWords } from '../src/ops/state.js';
import { allocateBanks } from '../src/runtime/arena.js';
import type { Executable, Program, RegionWrite, StepTiming, Storage } from '../src/runtime/backend.js';
import type { TensorWriter } from '../src/runtime/tensor-writer.js';
import { TensorStore } from '../src/runtime/tensors.js';
import { WebGpuBackend } from '../src/runtime/webgpu-backend.js';
import { llamaFigures } from './peers/llama.js';
import { BenchArgs } from './support/args.js';
import { maskOf } from './support/mask.js';
import { type BenchModel, modelOptions, modelsOf, promptIds } from './support/models.js';
import { type BenchResult, type Figure, formatFigure, rates } from './support/result.js';

export const summary = 'prefill of GGUF models on a GPU, with the time of each kind of step';

export async function run(args: readonly string[]): Promise<BenchResult> {
  const known = new BenchArgs(args, { flags: ['checked', 'peers'], values: [...modelOptions, 'rows', 'runs', 'without', 'activations'] });
  const without = known.list('without');
  const gpu = await GpuDevice.request({ checked: known.flag('checked'), mask: maskOf(without) });
  const runs = known.count('runs', 7);
  const figures: Figure[] = [];
  for (const model of await modelsOf(known)) {
    for (const rows of known.counts('rows', [2048])) {
      figures.push(await measure(gpu, model, rows, { runs, without, activations: activationsOf(known.text('activations')) }));
      if (known.flag('peers')) figures.push(...(await llamaFigures(model, { prompt: rows, tokens: 8, runs, only: 'prefill' })));
    }
  }
  return { adapter: gpu.adapterInfo.name, figures };
}

interface Prepared {
  readonly program: Program;
  readonly executable: Executable;
  readonly session: Storage;
  readonly compileMs: number;
  dispose(): void;
}

interface Options {
  readonly runs: number;
  /** What is masked. */
  readonly without: readonly string[];
  readonly activations: ActivationChoice;
}

function activationsOf(text = 'auto'): ActivationChoice {
  if (text === 'auto' || text === 'int8' || text === 'f32') return text;
  throw new Error(`--activations is auto, int8 or f32, got ${text}`);
}

/** Until the clocks are up: they fall while weights load, and while a peer does. */
const warmMs = 500;

async function measure(gpu: GpuDevice, { name, path }: BenchModel, rows: number, { runs, without, activations }: Options): Promise<Figure> {
  const backend = new WebGpuBackend(gpu, { owned: false, kernels: { activations } });
  const prepared = await prepare(backend, path, rows);
  const { executable, session } = prepared;
  const state: RegionWrite = { storage: session, offset: 0, bytes: sessionBytes(rows) };
  const once = async (): Promise<number> => {
    const start = performance.now();
    await executable.run([state], [{ storage: session, offset: 0, byteLength: 16 }]);
    return (performance.now() - start) / 1e3;
  };
  for (const begin = performance.now(); performance.now() - begin < warmMs; ) await once();
  const times: number[] = [];
  for (let i = 0; i < runs; i++) times.push(await once());
  const { kernels, plan } = prepared.program;
  const details = { compileMs: prepared.compileMs, kernels: kernels.length, dispatches: plan.steps.length };
  const poorer = `${without.map((what) => ` without ${what}`).join('')}${activations === 'auto' ? '' : `, ${activations} activations`}`;
  const figure: Figure = { name: `${name} of ${rows} tokens${poorer}`, ...rates(rows, times), unit: 'tok/s', checks: gpu.checks, details };
  console.error(`${figure.name}: ${formatFigure(figure)}, ${runs} runs, ${gpu.checks}, ${gpu.adapterInfo.name}`);
  console.error(`  ${plan.steps.length} dispatches; ${kernels.length} kernels compiled in ${prepared.compileMs.toFixed(0)} ms`);
  await backend.write(session, 0, state.bytes);
  report(await executable.profile());
  prepared.dispose();
  backend.dispose();
  return figure;
}

async function prepare(backend: WebGpuBackend, path: string, rows: number): Promise<Prepared> {
  const contextLength = Math.max(4096, rows);
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
  words.set(promptIds(rows), stateWord.ids);
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
    console.error(`  ${(ns / 1e6).toFixed(3).padStart(9)} ms  ${name}: ${count} of ${(ns / count / 1e3).toFixed(1)} us`);
  }
}
