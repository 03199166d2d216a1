import { ArgumentError } from '../core/errors.js';
import type { Arena } from '../runtime/arena.js';
import type { Executable, Program, Region } from '../runtime/backend.js';

/** A graph for runs of up to `rows` rows at positions below `window`: described, planned and compiled when it is first needed. */
export class PreparedRun {
  readonly rows: number;
  readonly window: number;
  /** Where the values of `program` are; set before the executable is there. */
  arena: Arena | undefined;
  executable: Promise<Executable> | undefined;
  /** The executable with a draw from its logits after it. */
  drawing: Promise<Executable> | undefined;
  readonly #plan: () => Program;
  #program: Program | undefined;

  constructor(rows: number, window: number, plan: () => Program) {
    this.rows = rows;
    this.window = window;
    this.#plan = plan;
  }

  get program(): Program {
    this.#program ??= this.#plan();
    return this.#program;
  }

  outputRegion(name: string): Region {
    const output = this.program.plan.graph.outputs.find((candidate) => candidate.name === name);
    if (output === undefined || this.arena === undefined) throw new ArgumentError('name', `the graph has no output "${name}"`);
    return this.arena.region(output.node);
  }
}
