import { bytesOf } from '../core/bytes.js';
import { ArgumentError, DisposedError, defined } from '../core/errors.js';
import { byteLengthOfType, elementCount, formatType, type TensorType } from '../core/tensor.js';
import type { Graph, GraphNode } from '../graph/graph.js';
import { type RewriteEntry, rewrite } from '../graph/rewrite.js';
import type { ExecutionPlan } from '../plan/execution-plan.js';
import { Arena, allocateBanks } from './arena.js';
import type { Backend, Executable, Region, RegionWrite, StepTiming, Storage } from './backend.js';
import { checkIds, idRanges } from './id-ranges.js';
import { withWork } from './profile.js';
import { TensorStore } from './tensors.js';

/** Values of a tensor: numbers of its type (f32, i32, u32), or raw bytes in ggml's layout for every type. */
export type TensorData = Float32Array | Int32Array | Uint32Array | Uint8Array;

/** Values of an output, by its type. */
export type OutputData = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** How a graph is fused, and which tensors it shares. */
export interface CompileOptions {
  /** Fuse before planning. Default true. */
  readonly rewrite?: boolean;
  /** Whether chains of elementwise operations become one kernel each; default false. */
  readonly regions?: boolean;
  /** Tensors to share with other graphs: weights, caches and states found there by name are used, those missing are made there. */
  readonly tensors?: TensorStore;
  /** Whether `dispose()` ends the backend too; default false. */
  readonly ownsBackend?: boolean;
}

/** A graph on a device: its weights, states and activations, and the steps to replay. */
export class CompiledGraph {
  /** Where it runs. */
  readonly backend: Backend;
  /** Its steps, and where every value lies. */
  readonly plan: ExecutionPlan<unknown>;
  /** What was fused, what was not, and why. */
  readonly rewrites: readonly RewriteEntry[];
  /** The memory of its activations. */
  readonly arena: Arena;
  /** Its weights and states, by name. */
  readonly tensors: TensorStore;
  readonly #executable: Executable;
  readonly #constants: ReadonlyMap<number, Storage>;
  readonly #ownsTensors: boolean;
  readonly #ownsBackend: boolean;
  readonly #unset: Set<string>;
  readonly #ids: ReturnType<typeof idRanges>;
  #disposed = false;

  private constructor(parts: {
    backend: Backend;
    plan: ExecutionPlan<unknown>;
    rewrites: readonly RewriteEntry[];
    arena: Arena;
    tensors: TensorStore;
    executable: Executable;
    constants: ReadonlyMap<number, Storage>;
    ownsTensors: boolean;
    ownsBackend: boolean;
    unset: Set<string>;
  }) {
    this.backend = parts.backend;
    this.plan = parts.plan;
    this.rewrites = parts.rewrites;
    this.arena = parts.arena;
    this.tensors = parts.tensors;
    this.#executable = parts.executable;
    this.#constants = parts.constants;
    this.#ownsTensors = parts.ownsTensors;
    this.#ownsBackend = parts.ownsBackend;
    this.#unset = parts.unset;
    this.#ids = idRanges(parts.plan.graph);
  }

  /** Rewrites, plans, allocates and compiles. States begin as zeros; weights must be set before the first run. */
  static async compile(graph: Graph, backend: Backend, options: CompileOptions = {}): Promise<CompiledGraph> {
    const rewritten = options.rewrite === false ? { graph, report: [] } : rewrite(graph, { regions: options.regions ?? false });
    const program = backend.program(rewritten.graph);
    const tensors = options.tensors ?? new TensorStore(backend);
    const allocated: Storage[] = [];
    try {
      const unset = await allocateLeaves(rewritten.graph, tensors);
      const banks = await allocateBanks(backend, [program.plan]);
      allocated.push(...banks);
      const constants = await uploadConstants(rewritten.graph, backend);
      allocated.push(...constants.values());
      const executable = await program.prepare(tensors.bindings(program.plan, banks, constants));
      const arena = new Arena(backend, program.plan, banks);
      const ownsTensors = options.tensors === undefined;
      const ownsBackend = options.ownsBackend ?? false;
      return new CompiledGraph({
        backend,
        plan: program.plan,
        rewrites: rewritten.report,
        arena,
        tensors,
        executable,
        constants,
        ownsTensors,
        ownsBackend,
        unset,
      });
    } catch (error) {
      for (const storage of allocated) storage.free();
      if (options.tensors === undefined) tensors.dispose();
      throw error;
    }
  }

  /** Sets a weight; packed types as bytes in ggml's layout. */
  async setParam(name: string, data: TensorData): Promise<void> {
    this.#check();
    await this.tensors.write(name, checkedBytes('data', this.#leaf(name, 'param'), name, data));
    this.#unset.delete(name);
  }

  /** Sets a state, which runs may update afterwards. */
  async setState(name: string, data: TensorData): Promise<void> {
    this.#check();
    const bytes = checkedBytes('data', this.#leaf(name, 'state'), name, data);
    checkIds(name, this.#ids.get(name), bytes);
    await this.tensors.write(name, bytes);
  }

  /** Reads a state's bytes. */
  async readState(name: string): Promise<Uint8Array> {
    this.#check();
    const type = this.#leaf(name, 'state').type;
    const storage = this.tensors.get(name)?.shards[0]?.storage;
    if (storage === undefined) throw new ArgumentError('name', `there is no state "${name}"`);
    return (await this.backend.read({ storage, offset: 0, byteLength: storage.byteLength })).subarray(0, byteLengthOfType(type));
  }

  /** Runs the graph once: inputs by name (those left out keep their last value), outputs by name. */
  async run(inputs: Readonly<Record<string, TensorData>> = {}): Promise<ReadonlyMap<string, OutputData>> {
    const { outputs } = this.plan.graph;
    const results = await this.#replay(
      inputs,
      outputs.map((output) => this.#outputRegion(output.node)),
    );
    return new Map(outputs.map((output, index) => [output.name, this.#decode(output.node, results[index])]));
  }

  /**
   * As `run`, and leaves the outputs on the device: `read` gets them. `times` runs follow one another in one submit, each on the states that the one before left: steps of a simulation or
   * of a recurrent network, without a word to the host in between. At least 1.
   */
  async execute(inputs: Readonly<Record<string, TensorData>> = {}, { times = 1 }: { readonly times?: number } = {}): Promise<void> {
    if (!Number.isInteger(times) || times < 1) throw new ArgumentError('times', `expected a whole number of runs, at least 1, got ${times}`);
    await this.#replay(inputs, [], times);
  }

  /** An output of the last run. */
  async read(name: string): Promise<OutputData> {
    return defined((await this.readAll([name])).get(name), `the output ${name}`);
  }

  /** Outputs of the last run, by name, in one wait. Default: all. */
  async readAll(names: readonly string[] = this.plan.graph.outputs.map((output) => output.name)): Promise<ReadonlyMap<string, OutputData>> {
    this.#check();
    const nodes = names.map((name) => {
      const output = this.plan.graph.outputs.find((candidate) => candidate.name === name);
      if (output === undefined) throw new ArgumentError('name', `the graph has no output "${name}"`);
      return output.node;
    });
    const results = await this.backend.readAll(nodes.map((node) => this.#outputRegion(node)));
    return new Map(names.map((name, index) => [name, this.#decode(nodes[index] ?? -1, results[index])]));
  }

  async #replay(inputs: Readonly<Record<string, TensorData>>, reads: readonly Region[], times = 1): Promise<readonly Uint8Array[]> {
    this.#check();
    const missing = [...this.#unset].filter((name) => !Object.hasOwn(inputs, name));
    if (missing.length > 0)
      throw new ArgumentError('inputs', `no value yet for ${missing.map((name) => `"${name}"`).join(', ')}: pass inputs to run, set weights by setParam`);
    const writes = Object.entries(inputs).map(([name, data]) => this.#inputWrite(name, data));
    return this.#executable.run(writes, reads, times);
  }

  /** Times each step on the device, with the bytes and operations that it takes; outputs and states are as after one run. */
  profile(): Promise<readonly StepTiming[]> {
    this.#check();
    return this.#executable.profile().then((timings) => withWork(timings, this.plan));
  }

  /** Frees what the graph made: its activations, and its tensors unless they were passed in. Again is no error. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.arena.free();
    for (const storage of this.#constants.values()) storage.free();
    if (this.#ownsTensors) this.tensors.dispose();
    if (this.#ownsBackend) this.backend.dispose();
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('the compiled graph');
  }

  #leaf(name: string, op: 'input' | 'param' | 'state'): GraphNode {
    const node = this.plan.graph.nodes.find((candidate) => candidate.op === op && candidate.params.name === name);
    if (node === undefined) throw new ArgumentError('name', `the graph has no ${op} "${name}"`);
    return node;
  }

  #inputWrite(name: string, data: TensorData): RegionWrite {
    const node = this.#leaf(name, 'input');
    const bytes = checkedBytes('inputs', node, name, data);
    checkIds(name, this.#ids.get(name), bytes);
    const region = this.arena.region(node.id);
    this.#unset.delete(name);
    return { storage: region.storage, offset: region.offset, bytes: padded(bytes) };
  }

  #outputRegion(id: number): Region {
    if (this.arena.has(id)) return this.arena.region(id);
    const value = this.plan.values.get(id);
    const root = value && this.plan.values.get(value.root);
    const storage = root?.storage === 'constant' ? this.#constants.get(root.id) : this.tensors.get(root?.name ?? '')?.shards[0]?.storage;
    if (value === undefined || storage === undefined) throw new ArgumentError('outputs', `output node ${id} has no storage`);
    return { storage, offset: value.byteOffset, byteLength: Math.ceil(value.byteLength / 4) * 4 };
  }

  #decode(id: number, bytes: Uint8Array | undefined): OutputData {
    const type = this.plan.values.get(id)?.type;
    if (type === undefined || bytes === undefined) throw new ArgumentError('outputs', `output node ${id} was not read`);
    const copy = Uint8Array.from(bytes);
    const count = elementCount(type.shape);
    switch (type.dtype) {
      case 'f32':
        return new Float32Array(copy.buffer, 0, count);
      case 'i32':
        return new Int32Array(copy.buffer, 0, count);
      case 'u32':
        return new Uint32Array(copy.buffer, 0, count);
      default:
        throw new ArgumentError('outputs', `an output of type ${formatType(type)} has no host form: read it as a state`);
    }
  }
}

/** The bytes of a value for a leaf; raw bytes are taken for any type, numbers for theirs. */
function checkedBytes(argument: string, { type }: GraphNode, name: string, data: TensorData): Uint8Array {
  const given = data instanceof Float32Array ? 'f32' : data instanceof Int32Array ? 'i32' : data instanceof Uint32Array ? 'u32' : undefined;
  if (given !== undefined && given !== type.dtype)
    throw new ArgumentError(argument, `"${name}" is ${formatType(type)}, got ${given} values: convert them, or pass the bytes as a Uint8Array`);
  const bytes = bytesOf(data);
  const wanted = byteLengthOfType(type);
  if (bytes.byteLength !== wanted) throw new ArgumentError(argument, `"${name}" is ${formatType(type)} and takes ${wanted} bytes, got ${bytes.byteLength}`);
  return bytes;
}

function padded(bytes: Uint8Array): Uint8Array {
  if (bytes.byteLength % 4 === 0) return bytes;
  const whole = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  whole.set(bytes);
  return whole;
}

/** Room for every weight and state, zeros in the new states; the names that need a value before the first run. */
async function allocateLeaves(graph: Graph, tensors: TensorStore): Promise<Set<string>> {
  const unset = new Set<string>();
  for (const node of graph.nodes) {
    if (node.op === 'input') unset.add(node.params.name);
    if (node.op !== 'param' && node.op !== 'state') continue;
    const isNew = tensors.get(node.params.name) === undefined;
    await tensors.allocate(node.params.name, node.type, node.op === 'param' ? 'weights' : 'state');
    if (!isNew) continue;
    if (node.op === 'param') unset.add(node.params.name);
    else await tensors.write(node.params.name, new Uint8Array(byteLengthOfType(node.type)));
  }
  return unset;
}

/** The constants of a graph, by node. */
async function uploadConstants(graph: Graph, backend: Backend): Promise<ReadonlyMap<number, Storage>> {
  const constants = new Map<number, Storage>();
  try {
    for (const node of graph.nodes) {
      if (node.op !== 'constant') continue;
      const bytes = constantBytes(node.type, node.params.values);
      const storage = await backend.allocate(node.name, Math.max(4, bytes.byteLength), 'constants');
      constants.set(node.id, storage);
      await backend.write(storage, 0, bytes);
    }
    return constants;
  } catch (error) {
    for (const storage of constants.values()) storage.free();
    throw error;
  }
}

function constantBytes(type: TensorType, values: readonly number[]): Uint8Array {
  switch (type.dtype) {
    case 'f32':
      return bytesOf(Float32Array.from(values));
    case 'i32':
      return bytesOf(Int32Array.from(values));
    case 'u32':
      return bytesOf(Uint32Array.from(values));
    default:
      throw new ArgumentError('type', `a constant is f32, i32 or u32, got ${formatType(type)}`);
  }
}
