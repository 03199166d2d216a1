import { f32Of } from '../core/bytes.js';
import { ArgumentError, BusyError, defined } from '../core/errors.js';
import { elementCount } from '../core/tensor.js';
import type { Backend, Storage } from '../runtime/backend.js';
import { CompiledGraph } from '../runtime/compiled-graph.js';
import { TensorStore } from '../runtime/tensors.js';
import { batchGraph, leafName } from './batch-program.js';
import type { BatchRecord } from './batch-record.js';

/** What an `execute` was asked to run: the batch as it was at that call. */
interface Asked {
  readonly generation: number;
  /** Buffers recorded by then. */
  readonly values: number;
  /** Buffers that can be read afterwards. */
  readonly outputs: ReadonlySet<number>;
  readonly uploads: ReadonlyMap<number, Float32Array>;
  /** Ends when all of it was submitted. */
  readonly run: Promise<void>;
}

interface Compiled {
  readonly graph: CompiledGraph;
  readonly tensors: TensorStore;
  readonly outputs: ReadonlySet<number>;
  readonly values: number;
  /** Uploads that some operation needs. */
  readonly inputs: ReadonlySet<string>;
  /** The data that each of them has on the device. */
  readonly written: Map<number, Float32Array>;
}

/** Runs what a batch recorded: one plan at a time, and calls in the order in which they were made, whenever they are awaited. Buffers go by their index in the record. */
export class BatchRunner {
  /** Data of uploads for the `execute` calls from now on. */
  readonly uploads = new Map<number, Float32Array>();
  readonly imports = new Map<number, Storage>();
  /** What is kept although other operations read it. */
  readonly kept = new Set<number>();
  readonly #backend: Backend;
  readonly #record: BatchRecord;
  #compiled: Compiled | undefined;
  /** The last execute() so far. */
  #asked: Asked | undefined;
  /** Ends with the last execute() so far: they run one after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(backend: Backend, record: BatchRecord) {
    this.#backend = backend;
    this.#record = record;
  }

  /** Runs what is recorded and uploaded at this call; resolves when the work was submitted. */
  execute(): Promise<void> {
    const { generation, values } = this.#record;
    return this.#ask({ generation, values: values.length, uploads: new Map(this.uploads) });
  }

  /** Plans and compiles what is recorded at this call. */
  warm(): Promise<void> {
    const { generation, values } = this.#record;
    const asked = { generation, values: values.length, outputs: this.#outputs(values.length) };
    const run = this.#turn.then(async () => {
      this.#expectCurrent(generation);
      if (asked.outputs.size > 0) await this.#compile(asked);
    });
    this.#turn = run.catch(() => undefined);
    return run;
  }

  /** The values as the last `execute` before this call leaves them. Those that it did not keep are kept from now on, by a run more. */
  async read(wanted: readonly number[]): Promise<Float32Array<ArrayBuffer>[]> {
    for (const index of wanted) this.#expectReadable(index);
    const missing = wanted.filter((index) => this.#record.values[index]?.kind === 'op' && this.#asked?.outputs.has(index) !== true);
    for (const index of missing) this.kept.add(index);
    if (missing.length > 0 && this.#asked !== undefined) this.#ask(this.#asked);
    const asked = this.#asked;
    if (asked === undefined) return [];
    await asked.run;
    this.#expectCurrent(asked.generation);
    return this.#fetch(wanted, asked);
  }

  /** Forgets what it ran, and what it would run. */
  reset(): void {
    this.release();
    for (const map of [this.uploads, this.imports, this.kept]) map.clear();
    this.#asked = undefined;
  }

  /** Takes its turn after all that was asked for before. */
  #ask(what: Pick<Asked, 'generation' | 'values' | 'uploads'>): Promise<void> {
    const asked = { ...what, outputs: this.#outputs(what.values) };
    const run = this.#turn.then(() => this.#run(asked));
    // Its caller hears of a failure; the next turn begins all the same.
    this.#turn = run.catch(() => undefined);
    this.#asked = { ...asked, run };
    return run;
  }

  async #run(asked: Omit<Asked, 'run'>): Promise<void> {
    this.#expectCurrent(asked.generation);
    if (asked.outputs.size === 0) return;
    const { graph, inputs, written } = await this.#compile(asked);
    const changed = [...asked.uploads].filter(([index, data]) => inputs.has(leafName(index)) && written.get(index) !== data);
    await graph.execute(Object.fromEntries(changed.map(([index, data]) => [leafName(index), data])));
    for (const [index, data] of changed) written.set(index, data);
  }

  #expectReadable(index: number): void {
    if (this.#asked === undefined) throw new ArgumentError('id', 'nothing was executed yet: call execute() first');
    if (index >= this.#asked.values) throw new ArgumentError('id', `buffer ${index} was recorded after the last execute(): call execute() first`);
    if (this.#record.values[index]?.kind === 'indices') throw new ArgumentError('id', `buffer ${index} holds indices, not values`);
  }

  /** Asks the device before it first waits, so that later runs do not change what it reads. */
  async #fetch(wanted: readonly number[], { uploads }: Asked): Promise<Float32Array<ArrayBuffer>[]> {
    const imported = [...new Set(wanted)].filter((index) => this.imports.has(index));
    const made = [...new Set(wanted)].filter((index) => !uploads.has(index) && !this.imports.has(index));
    const [imports, results] = await Promise.all([
      this.#readImports(imported),
      made.length === 0 ? new Map() : defined(this.#compiled, 'what was executed').graph.readAll(made.map(leafName)),
    ]);
    return wanted.map((index) => {
      const values: unknown = uploads.get(index) ?? imports.get(index) ?? results.get(leafName(index));
      if (!(values instanceof Float32Array)) throw new ArgumentError('id', `buffer ${index} holds no f32 values`);
      return values.slice();
    });
  }

  /** The plan for what was asked; the one at hand where that covers it. */
  async #compile({ generation, values: count, outputs }: Pick<Asked, 'generation' | 'values' | 'outputs'>): Promise<Compiled> {
    const known = this.#compiled;
    if (known !== undefined && known.values === count && [...outputs].every((index) => known.outputs.has(index))) return known;
    this.release();
    const values = this.#record.values.slice(0, count);
    const tensors = new TensorStore(this.#backend);
    for (const [index, storage] of this.imports) tensors.adopt(leafName(index), { dtype: 'f32', shape: this.#record.values[index]?.shape ?? [] }, storage);
    const graph = await CompiledGraph.compile(batchGraph(values, [...outputs]), this.#backend, { tensors, regions: true });
    if (!this.#record.isCurrent(generation)) {
      graph.dispose();
      tensors.dispose();
      this.#expectCurrent(generation);
    }
    const inputs = new Set(graph.plan.graph.nodes.flatMap((node) => (node.op === 'input' ? [node.params.name] : [])));
    this.#compiled = { graph, tensors, outputs, values: count, inputs, written: new Map() };
    return this.#compiled;
  }

  /** Of the first `count` buffers: operations that no other one reads, and those to keep. */
  #outputs(count: number): ReadonlySet<number> {
    const values = this.#record.values.slice(0, count);
    const read = new Set(values.flatMap((value) => (value.kind === 'op' ? value.inputs.map((input) => input.value) : [])));
    return new Set(values.flatMap((value, index) => (value.kind === 'op' && (!read.has(index) || this.kept.has(index)) ? [index] : [])));
  }

  async #readImports(indices: readonly number[]): Promise<ReadonlyMap<number, Float32Array>> {
    if (indices.length === 0) return new Map();
    const regions = indices.map((index) => {
      const storage = defined(this.imports.get(index), `the imported buffer ${index}`);
      return { storage, offset: 0, byteLength: elementCount(this.#record.values[index]?.shape ?? []) * 4 };
    });
    const read = await this.#backend.readAll(regions);
    return new Map(read.map((bytes, i) => [indices[i] ?? -1, f32Of(bytes)]));
  }

  /** @throws DisposedError, or BusyError where the batch was reset since `generation`. */
  #expectCurrent(generation: number): void {
    this.#record.check();
    if (!this.#record.isCurrent(generation)) throw new BusyError('the batch was reset while execute() compiled it: await execute() before reset()');
  }

  /** Frees what it has on the device. */
  release(): void {
    this.#compiled?.graph.dispose();
    this.#compiled?.tensors.dispose();
    this.#compiled = undefined;
  }
}
