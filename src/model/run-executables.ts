/** The runs of a decoder bound to memory: compiled when they are first needed, over banks that they share. */

import { DisposedError } from '../core/errors.js';
import { Arena, allocateBanks } from '../runtime/arena.js';
import type { Backend, Executable, RegionWrite, Storage } from '../runtime/backend.js';
import type { TensorStore } from '../runtime/tensors.js';
import { decoderNames } from './decoder-graph.js';
import { type Draw, DrawProgram } from './draw-program.js';
import type { PreparedRun } from './prepared-run.js';

export class RunExecutables {
  readonly #backend: Backend;
  readonly #tensors: TensorStore;
  readonly #vocabulary: number;
  /** As large as the decode step and the largest run want them. */
  readonly #banks: readonly Storage[];
  /** Of runs that do not fit into the shared ones. */
  readonly #ownBanks: Storage[] = [];
  #drawProgram: Promise<DrawProgram> | undefined;
  /** To be freed. */
  #made: DrawProgram | undefined;
  #disposed = false;

  constructor(backend: Backend, tensors: TensorStore, vocabulary: number, banks: readonly Storage[]) {
    this.#backend = backend;
    this.#tensors = tensors;
    this.#vocabulary = vocabulary;
    this.#banks = banks;
  }

  /** The run by itself. */
  of(run: PreparedRun): Promise<Executable> {
    run.executable ??= this.#prepare(run);
    return run.executable;
  }

  /** The run with a draw from its logits after it. */
  drawing(run: PreparedRun): Promise<Executable> {
    run.drawing ??= this.#prepareDrawing(run);
    return run.drawing;
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

  async #prepare(run: PreparedRun): Promise<Executable> {
    const { plan } = run.program;
    const fits = plan.memory.banks.every((bytes, index) => bytes <= (this.#banks[index]?.byteLength ?? 0));
    const banks = fits ? this.#banks : await allocateBanks(this.#backend, [plan]);
    if (!fits) this.#ownBanks.push(...banks);
    if (this.#disposed) {
      // What was allocated after `dispose` is nobody's.
      for (const bank of this.#ownBanks.splice(0)) bank.free();
      throw new DisposedError('the decoder');
    }
    run.arena = new Arena(this.#backend, plan, banks);
    return run.program.prepare(this.#tensors.bindings(plan, banks, new Map()));
  }

  async #prepareDrawing(run: PreparedRun): Promise<Executable> {
    const executable = await this.of(run);
    this.#drawProgram ??= this.#makeDrawProgram();
    const program = await this.#drawProgram;
    return executable.followedBy(await program.prepare(run.outputRegion(decoderNames.logits)));
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
