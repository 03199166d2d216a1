/** Drawing from the logits that a decoder's run leaves on the device: a program of one operation, planned once and bound to the logits of each run. */

import type { TensorType } from '../core/tensor.js';
import { GraphBuilder } from '../graph/builder.js';
import type { Graph } from '../graph/graph.js';
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

const samplingType = (vocabulary: number): TensorType => ({ dtype: 'u32', shape: [samplingWords(vocabulary)] });

/** The draw over a session of `words` words; the logits are a state that a run has written. */
export function drawGraph(words: number, vocabulary: number): Graph {
  const g = new GraphBuilder();
  const states = [g.state(decoderNames.session, { dtype: 'u32', shape: [words] }), g.state(decoderNames.sampling, samplingType(vocabulary))];
  g.output('token', g.add('redraw', {}, [...states, g.state(decoderNames.logits, { dtype: 'f32', shape: [1, vocabulary] })], 'redraw'));
  return g.build();
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
    await tensors.allocate(decoderNames.sampling, samplingType(vocabulary), 'state');
    const program = backend.program(drawGraph(tensors.get(decoderNames.session)?.type.shape[0] ?? 0, vocabulary));
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
