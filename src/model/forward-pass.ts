import { bytesOf, f32Of } from '../core/bytes.js';
import type { DType } from '../core/dtype.js';
import { ArgumentError, BusyError, ContextError, DisposedError, defined } from '../core/errors.js';
import { sameShape, type TensorType } from '../core/tensor.js';
import { rewrite } from '../graph/rewrite.js';
import { stateWords } from '../ops/state.js';
import { Arena, allocateBanks } from '../runtime/arena.js';
import type { Backend, Executable, Program, RegionWrite, Storage } from '../runtime/backend.js';
import { openBackend } from '../runtime/select.js';
import { TensorStore } from '../runtime/tensors.js';
import type { DecoderConfig } from './decoder-config.js';
import { type CacheType, cacheTensor, decoderGraph, decoderLayerGraph, decoderNames } from './decoder-graph.js';
import { DecoderSession } from './decoder-session.js';
import { fillTensors } from './decoder-tensors.js';
import { type ForwardPassOptions, forwardPassConfig } from './forward-pass-options.js';
import { forwardPassShaders } from './forward-pass-shaders.js';
import { encodeSlot, type WeightSlot, weightSlots } from './forward-pass-weights.js';

export { type ForwardPassOptions, forwardPassConfig } from './forward-pass-options.js';

/** Most rows of one run; longer inputs are fed run by run. */
const maxRows = 64;

/** A planned graph for runs of `rows` rows, and its kernels over the present activations. */
interface Run {
  readonly rows: number;
  readonly program: Program;
  executable: Executable | undefined;
}

/** Bytes that a pass holds on its backend. */
export interface ForwardPassMemory {
  readonly weights: number;
  readonly kvCache: number;
  readonly activations: number;
  /** RoPE table and session state. */
  readonly state: number;
  /** Buffers for results on their way to the host; they belong to the backend. */
  readonly staging: number;
}

/**
 * A decoder-only transformer by hand: weights by name, one layer or the whole model at a position. The KV cache stays on the device, a token is one submit, and every product reads
 * its weight as [outputs, inputs], whatever the number of rows.
 *
 * Per layer: h += o_proj(attention(rope(q_proj(n) + q_bias), rope(k_proj(n) + k_bias), v_proj(n) + v_bias)) with n = rmsnorm(h) attn_norm, then
 * h += down_proj(silu(gate_proj(n)) up_proj(n)) with n = rmsnorm(h) ffn_norm. The head is lm_head(rmsnorm(h) out_norm).
 */
export class WgslForwardPass {
  /** Where it runs: `kind`, `name` and `reason`. */
  readonly backend: Backend;
  /** Positions of the KV cache. */
  readonly contextLength: number;
  readonly #config: DecoderConfig;
  readonly #cacheType: CacheType;
  readonly #weightType: DType;
  readonly #owned: boolean;
  readonly #tensors: TensorStore;
  readonly #session: DecoderSession;
  readonly #slots: ReadonlyMap<string, WeightSlot>;
  /** Types of the weights that are uploaded, by tensor. */
  readonly #types = new Map<string, TensorType>();
  readonly #runs = new Map<string, Run>();
  /** Positions that each layer's cache holds. */
  readonly #held: number[];
  #banks: readonly Storage[] = [];
  #running = false;
  #disposed = false;

  private constructor(backend: Backend, owned: boolean, options: ForwardPassOptions) {
    this.backend = backend;
    this.contextLength = options.contextLength;
    this.#owned = owned;
    this.#config = forwardPassConfig(options);
    this.#cacheType = options.cacheType ?? 'f32';
    this.#weightType = options.weightType ?? 'f32';
    this.#tensors = new TensorStore(backend);
    this.#session = new DecoderSession(this.#tensors, 'the forward pass');
    this.#slots = weightSlots(this.#config, options.tiedEmbedding ?? false);
    this.#held = new Array<number>(this.#config.layers).fill(0);
  }

  /**
   * Opens the device, where no backend is given, and allocates the KV cache.
   * @throws ArgumentError for dimensions that cannot be; OutOfMemoryError where the cache does not fit.
   */
  static async create(options: ForwardPassOptions): Promise<WgslForwardPass> {
    forwardPassConfig(options);
    const { backend, device } = options;
    if (backend !== undefined && device !== undefined) throw new ArgumentError('device', 'a backend has its device already: give one of the two');
    const opened = backend ?? (await openBackend(device === undefined ? {} : { device }));
    const pass = new WgslForwardPass(opened, backend === undefined, options);
    try {
      await pass.#allocate();
      return pass;
    } catch (error) {
      pass.dispose();
      throw error;
    }
  }

  /** WGSL of y = x / sqrt(mean(x^2) + eps) * gain for a row of 1536. */
  static get rmsnormShader(): string {
    return forwardPassShaders.rmsnorm();
  }

  /** WGSL of silu(gate) * up for 8960 elements. */
  static get siluMulShader(): string {
    return forwardPassShaders.siluMul();
  }

  /** WGSL of x += y for a row of 1536. */
  static get residualShader(): string {
    return forwardPassShaders.residual();
  }

  /** WGSL of RoPE in place over 12 heads of 128; angles come from a table made in f64. */
  static get ropeShader(): string {
    return forwardPassShaders.rope();
  }

  /** Names that `uploadWeight` takes, in the order of the layers. */
  get weightNames(): readonly string[] {
    return [...this.#slots.keys()];
  }

  /** Weights uploaded so far. */
  get weightCount(): number {
    return this.#types.size;
  }

  /** Names of the weights that are still to be uploaded. */
  missingWeights(): readonly string[] {
    return [...this.#slots].filter(([, { tensor }]) => !this.#types.has(tensor)).map(([name]) => name);
  }

  /**
   * Uploads or replaces a weight: matrices [outputs, inputs] as numbers (encoded as `type`) or as packed blocks in ggml's layout, norms and biases as f32 numbers. One of another type takes
   * the place of the old one, which is freed first: where that fails the weight is missing.
   * @throws ArgumentError for an unknown name or a wrong length; UnsupportedError for a type that the backend does not multiply; OutOfMemoryError.
   */
  async uploadWeight(name: string, data: Float32Array | Uint8Array, options: { readonly type?: DType } = {}): Promise<void> {
    const slot = this.#slots.get(name);
    if (slot === undefined) throw new ArgumentError('name', this.#unknownName(name));
    const { type, bytes } = encodeSlot(name, slot, data, options.type, this.#weightType);
    await this.#exclusive(async () => {
      const known = this.#types.get(slot.tensor);
      if (known !== undefined && (known.dtype !== type.dtype || !sameShape(known.shape, type.shape))) {
        this.#types.delete(slot.tensor);
        this.#tensors.free(slot.tensor);
      }
      if (known?.dtype !== type.dtype) this.#runs.clear();
      await this.#tensors.allocate(slot.tensor, type, 'weights');
      await this.#tensors.write(slot.tensor, bytes);
      this.#types.set(slot.tensor, type);
    });
  }

  /**
   * Logits after a token at a position, f32 [vocabSize]; of several tokens, at consecutive positions, those after the last. Positions are fed in order; feeding an earlier one again
   * forgets what came after it.
   * @throws ArgumentError for a missing weight, a token that the embedding has no row for, or a position that leaves a gap; ContextError past the KV cache.
   */
  async forwardModel(tokens: number | readonly number[], position: number): Promise<Float32Array> {
    const ids = typeof tokens === 'number' ? [tokens] : tokens;
    const { vocabulary } = this.#config;
    if (!Array.isArray(ids) && !ArrayBuffer.isView(ids)) throw new ArgumentError('tokens', `tokens are one token id or a list of them, got ${typeof tokens}`);
    if (ids.length === 0) throw new ArgumentError('tokens', 'at least one token has to be fed');
    const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
    if (bad !== undefined) throw new ArgumentError('tokens', `token ${bad} is out of range: the embedding has ${vocabulary} rows`);
    return this.#exclusive(async () => {
      this.#checkWeights(this.missingWeights());
      this.#checkPosition(position, ids.length, Math.min(...this.#held));
      let logits = new Float32Array();
      for (let start = 0; start < ids.length; start += maxRows) {
        const chunk = ids.slice(start, start + maxRows);
        const { run, arena } = await this.#ready(undefined, chunk.length);
        const reads = start + chunk.length === ids.length ? [{ ...arena.outputRegion(decoderNames.logits), byteLength: vocabulary * 4 }] : [];
        const pending = defined(run.executable, 'the executable').run(this.#session.writes(position + start, chunk), reads);
        this.#held.fill(position + start + chunk.length);
        const [bytes] = await pending;
        if (bytes !== undefined) logits = f32Of(bytes);
      }
      return logits;
    });
  }

  /**
   * `hidden` f32 [T, hiddenDim] after one layer, T being 1 or more: its rows are at positions `position` on. The layer's keys and values go into the KV cache.
   * @throws as `forwardModel`, for the weights of this layer.
   */
  async forwardLayer(hidden: Float32Array, layer: number, position: number): Promise<Float32Array> {
    const { width, layers } = this.#config;
    if (!(hidden instanceof Float32Array)) throw new ArgumentError('hidden', `hidden is a Float32Array of whole rows, got ${typeof hidden}`);
    if (!(Number.isInteger(layer) && layer >= 0 && layer < layers)) throw new ArgumentError('layer', `layers go from 0 to ${layers - 1}, got ${layer}`);
    const rows = hidden.length / width;
    if (!(Number.isInteger(rows) && rows > 0)) throw new ArgumentError('hidden', `hidden is whole rows of ${width} numbers, got ${hidden.length}`);
    return this.#exclusive(async () => {
      this.#checkWeights(this.missingWeights().filter((name) => name.startsWith(`layer.${layer}.`)));
      this.#checkPosition(position, rows, this.#held[layer] ?? 0);
      const y = new Float32Array(hidden.length);
      for (let start = 0; start < rows; start += maxRows) {
        const count = Math.min(maxRows, rows - start);
        const { run, arena } = await this.#ready(layer, count);
        const x = hidden.subarray(start * width, (start + count) * width);
        const input = inputWrite(arena, bytesOf(x));
        const pending = defined(run.executable, 'the executable').run(
          [...this.#session.writes(position + start, count), input],
          [{ ...arena.outputRegion(decoderNames.hidden), byteLength: count * width * 4 }],
        );
        this.#held[layer] = position + start + count;
        const [bytes] = await pending;
        y.set(f32Of(defined(bytes, 'the hidden rows')), start * width);
      }
      return y;
    });
  }

  /** Compiles the decode step, so that the first token is as fast as the others. */
  async warm(): Promise<void> {
    await this.#exclusive(async () => {
      this.#checkWeights(this.missingWeights());
      await this.#ready(undefined, 1);
    });
  }

  /** Bytes on the device, by what they are for. */
  memory(): ForwardPassMemory {
    const bytes = (names: Iterable<string>): number => [...names].reduce((sum, name) => sum + (this.#tensors.get(name)?.byteLength ?? 0), 0);
    return {
      weights: bytes(this.#types.keys()),
      kvCache: bytes(this.#caches().map(([name]) => name)),
      activations: this.#banks.reduce((sum, bank) => sum + bank.byteLength, 0),
      state: bytes([decoderNames.session, decoderNames.ropeTable]),
      staging: this.#disposed ? 0 : this.backend.ledger().byClass.staging.bytes,
    };
  }

  /** All bytes on the device: weights as packed, KV cache, activations, tables, buffers for results. */
  totalVramBytes(): number {
    return Object.values(this.memory()).reduce((sum: number, bytes: number) => sum + bytes, 0);
  }

  /** Frees everything; ends the device where the pass opened it. Again is no error. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#tensors.dispose();
    for (const bank of this.#banks) bank.free();
    this.#banks = [];
    this.#runs.clear();
    if (this.#owned) this.backend.dispose();
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  async #allocate(): Promise<void> {
    for (const [name, type] of this.#caches()) await this.#tensors.allocate(name, type, 'kv');
    const session: TensorType = { dtype: 'u32', shape: [stateWords(maxRows)] };
    await this.#tensors.allocate(decoderNames.session, session, 'state');
    await this.#tensors.allocate(decoderNames.ropeTable, { dtype: 'f32', shape: [this.contextLength, this.#config.rotated / 2, 2] }, 'constants');
    await fillTensors(this.#tensors, this.#config, { positions: this.contextLength, rows: maxRows });
  }

  #caches(): readonly (readonly [name: string, type: TensorType])[] {
    const type = cacheTensor(this.#config, this.#cacheType, this.contextLength);
    return this.#held.flatMap((_, layer) => [[decoderNames.keys(layer), type] as const, [decoderNames.values(layer), type] as const]);
  }

  /** The run of the model (`layer` undefined) or of a layer that takes `count` rows, compiled and bound. */
  async #ready(layer: number | undefined, count: number): Promise<{ readonly run: Run; readonly arena: Arena }> {
    const rows = 2 ** Math.ceil(Math.log2(count));
    const key = `${layer ?? 'model'} ${rows}`;
    const known = this.#runs.get(key);
    const run = known ?? { rows, program: this.#program(layer, rows), executable: undefined };
    this.#runs.set(key, run);
    await this.#growBanks().catch((error: unknown) => {
      // Smaller runs need no room for one that does not fit.
      if (known === undefined) this.#runs.delete(key);
      throw error;
    });
    this.#checkAlive();
    run.executable ??= await run.program.prepare(this.#tensors.bindings(run.program.plan, this.#banks, new Map()));
    this.#checkAlive();
    return { run, arena: new Arena(this.backend, run.program.plan, this.#banks) };
  }

  #program(layer: number | undefined, rows: number): Program {
    const options = { rows, maxRows, contextLength: this.contextLength, cacheType: this.#cacheType };
    const logits = rows === 1 ? ('all' as const) : ('next' as const);
    const graph =
      layer === undefined ? decoderGraph(this.#config, this.#types, { ...options, logits }) : decoderLayerGraph(this.#config, this.#types, layer, options);
    return this.backend.program(rewrite(graph).graph);
  }

  /** The banks cover every planned run; where they have to grow, all runs are bound anew when they are next used. */
  async #growBanks(): Promise<void> {
    const plans = [...this.#runs.values()].map(({ program }) => program.plan);
    if (plans.every(({ memory }) => memory.banks.every((bytes, index) => bytes <= (this.#banks[index]?.byteLength ?? 0)))) return;
    for (const bank of this.#banks) bank.free();
    this.#banks = [];
    for (const run of this.#runs.values()) run.executable = undefined;
    const banks = await allocateBanks(this.backend, plans);
    // What was allocated after `dispose` is nobody's.
    if (this.#disposed) for (const bank of banks) bank.free();
    this.#checkAlive();
    this.#banks = banks;
  }

  #checkWeights(missing: readonly string[]): void {
    if (missing.length === 0) return;
    const shown = missing.slice(0, 5).join(', ');
    throw new ArgumentError('weights', `missing ${shown}${missing.length > 5 ? ` and ${missing.length - 5} more` : ''}: upload them first`);
  }

  #checkPosition(position: number, rows: number, held: number): void {
    if (!Number.isSafeInteger(position) || position < 0) throw new ArgumentError('position', `positions are whole numbers from 0, got ${position}`);
    const { contextLength } = this;
    if (position + rows > contextLength) {
      const message = `position ${position + rows - 1} is past the KV cache, which holds ${contextLength}: make the pass with a longer context`;
      throw new ContextError(message, { tokens: position + rows, contextLength });
    }
    if (position > held) throw new ArgumentError('position', `position ${position} leaves a gap: the KV cache holds ${held} positions, feed ${held} first`);
  }

  #unknownName(name: string): string {
    if (/^layer\.\d+\.[qkv]_bias$/.test(name) && !this.#config.qkvBias) return `"${name}" has no use: make the pass with qkvBias: true`;
    if (name === 'lm_head') return '"lm_head" has no use: the embedding is tied';
    return `"${name}" is no weight of this pass: names are embedding, layer.{0..${this.#config.layers - 1}}.q_proj and so on (see weightNames), out_norm, lm_head`;
  }

  async #exclusive<T>(work: () => Promise<T>): Promise<T> {
    this.#checkAlive();
    if (this.#running) throw new BusyError('the forward pass is in the middle of a call: await it first');
    this.#running = true;
    try {
      return await work();
    } catch (error) {
      throw error instanceof DisposedError && this.#disposed ? new DisposedError('the forward pass', { cause: error }) : error;
    } finally {
      this.#running = false;
    }
  }

  #checkAlive(): void {
    if (this.#disposed) throw new DisposedError('the forward pass');
  }
}

function inputWrite(arena: Arena, bytes: Uint8Array): RegionWrite {
  const node = defined(
    arena.plan.graph.nodes.find(({ op }) => op === 'input'),
    'the input',
  );
  const { storage, offset } = arena.region(node.id);
  return { storage, offset, bytes };
}
