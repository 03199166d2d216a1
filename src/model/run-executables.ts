/** The runs of a decoder bound to memory: each compiled when it is first needed, over banks that they share. */

import { DisposedError } from '../core/errors.js';
import { Arena, allocateBanks } from '../runtime/arena.js';
import type { Backend, Executable, Region, RegionWrite, Storage } from '../runtime/backend.js';
import type { TensorStore } from '../runtime/tensors.js';
import { decoderNames } from './decoder-graph.js';
import type { DecoderRun } from './decoder-runs.js';
import { type Draw, DrawProgram } from './draw-program.js';
import type { RunPrograms } from './run-programs.js';

/** A run that can be submitted. */
export interface BoundRun {
  readonly executable: Executable;
  /** Where it leaves the logits of its last live row. */
  readonly logits: Region;
}

export class RunExecutables {
  readonly #backend: Backend;
  readonly #programs: RunPrograms;
  readonly #tensors: TensorStore;
  readonly #vocabulary: number;
  /** As large as the decode step and the largest run want them. */
  readonly #banks: readonly Storage[];
  /** Of runs that do not fit into the shared ones. */
  readonly #ownBanks = new Set<Storage>();
  readonly #bound = new Map<DecoderRun, Promise<BoundRun>>();
  readonly #drawing = new Map<DecoderRun, Promise<BoundRun>>();
  #drawProgram: Promise<DrawProgram> | undefined;
  /** To be freed. */
  #made: DrawProgram | undefined;
  #disposed = false;

  constructor(parts: { backend: Backend; programs: RunPrograms; tensors: TensorStore; vocabulary: number; banks: readonly Storage[] }) {
    this.#backend = parts.backend;
    this.#programs = parts.programs;
    this.#tensors = parts.tensors;
    this.#vocabulary = parts.vocabulary;
    this.#banks = parts.banks;
  }

  /** The run by itself. */
  of(run: DecoderRun): Promise<BoundRun> {
    return kept(this.#bound, run, () => this.#bind(run));
  }

  /** The run with a draw from its logits after it. */
  drawing(run: DecoderRun): Promise<BoundRun> {
    return kept(this.#drawing, run, () => this.#bindDrawing(run));
  }

  /** Whether somebody has asked for a run, by itself or drawing, so that it is bound or about to be. */
  isAsked(run: DecoderRun, draws: boolean): boolean {
    return (draws ? this.#drawing : this.#bound).has(run);
  }

  /** What is written before the first run that draws. */
  async drawWrites(draw: Draw): Promise<readonly RegionWrite[]> {
    return (await this.#drawProgram)?.writes(draw) ?? [];
  }

  /** Frees the activations and the draw's state; what is being allocated is freed when it is there. */
  dispose(): void {
    this.#disposed = true;
    for (const bank of [...this.#banks, ...this.#ownBanks]) bank.free();
    this.#made?.dispose();
  }

  async #bind(run: DecoderRun): Promise<BoundRun> {
    const program = this.#programs.of(run);
    const { plan } = program;
    const fits = plan.memory.banks.every((bytes, index) => bytes <= (this.#banks[index]?.byteLength ?? 0));
    const banks = fits ? this.#banks : await allocateBanks(this.#backend, [plan]);
    const own = fits ? [] : banks;
    for (const bank of own) this.#ownBanks.add(bank);
    try {
      // What was allocated after `dispose` is nobody's.
      if (this.#disposed) throw new DisposedError('the decoder');
      const logits = new Arena(this.#backend, plan, banks).outputRegion(decoderNames.logits);
      return { executable: await program.prepare(this.#tensors.bindings(plan, banks, new Map())), logits };
    } catch (error) {
      for (const bank of own) {
        bank.free();
        this.#ownBanks.delete(bank);
      }
      throw error;
    }
  }

  async #bindDrawing(run: DecoderRun): Promise<BoundRun> {
    const { executable, logits } = await this.of(run);
    this.#drawProgram ??= this.#makeDrawProgram().catch((error: unknown) => {
      this.#drawProgram = undefined;
      throw error;
    });
    const program = await this.#drawProgram;
    return { executable: executable.followedBy(await program.prepare(logits)), logits };
  }

  async #makeDrawProgram(): Promise<DrawProgram> {
    try {
      this.#made = await DrawProgram.create(this.#backend, this.#tensors, this.#vocabulary);
    } finally {
      // What was allocated after `dispose` is nobody's.
      if (this.#disposed) this.#tensors.dispose();
    }
    if (!this.#disposed) return this.#made;
    this.#made.dispose();
    throw new DisposedError('the decoder');
  }
}

/** What was made for a key, or is being made. What failed, for want of memory say, is made anew when it is asked for again. */
function kept<Key, Value>(made: Map<Key, Promise<Value>>, key: Key, make: () => Promise<Value>): Promise<Value> {
  const known = made.get(key);
  if (known !== undefined) return known;
  const making = make();
  made.set(key, making);
  making.catch(() => made.delete(key));
  return making;
}
