/** Drawing from the logits that a decoder's run leaves on the device: a program of one operation, planned once and bound to the logits of each run. */

import { GraphBuilder } from '../graph/builder.js';
import { isPenalised, promptBit, type SamplingParameters, samplingHeader, samplingWord, samplingWords } from '../ops/sampling-state.js';
import { allocateBanks } from '../runtime/arena.js';
import type { Backend, Executable, Program, Region, RegionWrite, Storage } from '../runtime/backend.js';
import type { TensorStore } from '../runtime/tensors.js';
import { decoderNames } from './decoder-graph.js';

/** What a stream of draws depends on, beside the logits. */
export interface Draw {
  readonly parameters: SamplingParameters;
  /** Tokens that the repetition penalty counts as seen from the start. */
  readonly prompt: readonly number[];
}

export class DrawProgram {
  readonly #tensors: TensorStore;
  readonly #program: Program;
  readonly #banks: readonly Storage[];
  readonly #vocabulary: number;

  private constructor(tensors: TensorStore, program: Program, banks: readonly Storage[], vocabulary: number) {
    this.#tensors = tensors;
    this.#program = program;
    this.#banks = banks;
    this.#vocabulary = vocabulary;
  }

  /** Allocates the sampling state among the decoder's tensors, and the operation's scratch. */
  static async create(backend: Backend, tensors: TensorStore, vocabulary: number): Promise<DrawProgram> {
    const session = tensors.get(decoderNames.session)?.type ?? { dtype: 'u32', shape: [0] };
    const sampling = await tensors.allocate(decoderNames.sampling, { dtype: 'u32', shape: [samplingWords(vocabulary)] }, 'state');
    const g = new GraphBuilder();
    const states = [g.state(decoderNames.session, session), g.state(decoderNames.sampling, sampling.type)];
    g.output('token', g.add('redraw', {}, [...states, g.state(decoderNames.logits, { dtype: 'f32', shape: [1, vocabulary] })], 'redraw'));
    const program = backend.program(g.build());
    return new DrawProgram(tensors, program, await allocateBanks(backend, [program.plan]), vocabulary);
  }

  /** The draw from logits that lie at `logits`. */
  prepare(logits: Region): Promise<Executable> {
    const { plan } = this.#program;
    const bindings = this.#tensors.bindings(plan, this.#banks, new Map());
    const isLogits = (owner: number): boolean => plan.values.get(owner)?.name === decoderNames.logits;
    return this.#program.prepare({
      bank: (index) => bindings.bank(index),
      leaf: (owner, shard) => (isLogits(owner) ? logits.storage : bindings.leaf(owner, shard)),
      leafOffset: (owner) => (isLogits(owner) ? logits.offset : 0),
    });
  }

  /** The sampling state before the first draw. Counts that no penalty reads stay as they are. */
  writes({ parameters, prompt }: Draw): readonly RegionWrite[] {
    const storage = this.#tensors.get(decoderNames.sampling)?.shards[0]?.storage;
    if (storage === undefined) return [];
    const header = samplingHeader(parameters);
    if (!isPenalised(parameters)) return [{ storage, offset: 0, bytes: new Uint8Array(header.buffer) }];
    const words = new Uint32Array(samplingWords(this.#vocabulary));
    words.set(header);
    for (const token of prompt) words[samplingWord.counts + token] = promptBit;
    return [{ storage, offset: 0, bytes: new Uint8Array(words.buffer) }];
  }

  dispose(): void {
    for (const bank of this.#banks) bank.free();
  }
}
