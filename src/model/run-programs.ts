import type { TensorType } from '../core/tensor.js';
import type { Backend, Program } from '../runtime/backend.js';
import type { DecoderRun } from './decoder-runs.js';

/** The runs of a decoder as programs of its backend, each planned when it is first needed. */
export class RunPrograms {
  readonly #backend: Backend;
  readonly #runs: readonly DecoderRun[];
  readonly #programs = new Map<DecoderRun, Program>();

  constructor(backend: Backend, runs: readonly DecoderRun[]) {
    this.#backend = backend;
    this.#runs = runs;
  }

  of(run: DecoderRun): Program {
    const program = this.#programs.get(run) ?? this.#plan(run);
    this.#programs.set(run, program);
    return program;
  }

  /** Begins to compile what weights of these types pass through on their way in, and then these runs, in this order. A failure is told to whoever prepares the run. */
  beginCompiling(weights: Iterable<TensorType>, needed: readonly DecoderRun[]): void {
    this.#backend.warmRows?.(weights).catch(() => undefined);
    for (const run of new Set(needed)) {
      this.of(run)
        .compile?.()
        .catch(() => undefined);
    }
  }

  /** Decode steps differ in their windows alone, so that each is planned from the first one. */
  #plan(run: DecoderRun): Program {
    const [first] = this.#runs;
    const like = first !== undefined && run !== first && run.rows === 1 ? this.of(first) : undefined;
    return this.#backend.program(run.graph, like);
  }
}
