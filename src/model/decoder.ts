import { f32Of } from '../core/bytes.js';
import { ArgumentError, BusyError, CentellaError, DisposedError, defined, throwIfAborted } from '../core/errors.js';
import type { TensorType } from '../core/tensor.js';
import { type RewriteEntry, rewrite } from '../graph/rewrite.js';
import { noToken } from '../ops/state.js';
import { Arena, allocateBanks } from '../runtime/arena.js';
import type { Backend, BackendKind, Region, RegionWrite, StepTiming, Storage } from '../runtime/backend.js';
import { withWork } from '../runtime/profile.js';
import { TensorStore } from '../runtime/tensors.js';
import { checkIds, checkRoom } from './decoder-checks.js';
import type { DecoderConfig } from './decoder-config.js';
import { decoderGraph, decoderNames } from './decoder-graph.js';
import { type DecoderOptions, type DecoderRun, decoderRuns, runFor, runsAtLoad, stepsAhead } from './decoder-runs.js';
import { DecoderSession, tokensIn } from './decoder-session.js';
import { makeTensors } from './decoder-tensors.js';
import type { Draw } from './draw-program.js';
import { promptRuns } from './prompt-runs.js';
import { RunAhead } from './run-ahead.js';
import { type BoundRun, RunExecutables } from './run-executables.js';
import { RunPrograms } from './run-programs.js';

/**
 * A decoder on a backend: weights, KV cache and the steps of decode and prefill. Tokens go in by their ids, and out comes the next token, the most likely one or a drawn one (both chosen on the
 * device), or a row of logits. It knows nothing of text.
 */
export class Decoder {
  readonly backend: Backend;
  readonly config: DecoderConfig;
  readonly options: DecoderOptions;
  readonly tensors: TensorStore;
  readonly #weights: ReadonlyMap<string, TensorType>;
  /** By rows, smallest first; the first decodes. */
  readonly #runs: readonly DecoderRun[];
  readonly #programs: RunPrograms;
  readonly #executables: RunExecutables;
  readonly #session: DecoderSession;
  #position = 0;
  /** Whether the session on the device stands where `#position` does, with a chosen token to go on from. */
  #canContinue = false;
  /** Whether that token was drawn, and those after it are. */
  #draws = false;
  /** Runs for the next tokens; they leave the device ahead of `#position`. */
  readonly #ahead: RunAhead;
  #running = false;
  #disposed = false;

  private constructor(parts: {
    backend: Backend;
    config: DecoderConfig;
    options: DecoderOptions;
    tensors: TensorStore;
    weights: ReadonlyMap<string, TensorType>;
    banks: readonly Storage[];
    runs: readonly DecoderRun[];
    programs: RunPrograms;
  }) {
    this.backend = parts.backend;
    this.config = parts.config;
    this.options = parts.options;
    this.tensors = parts.tensors;
    this.#weights = parts.weights;
    this.#runs = parts.runs;
    this.#programs = parts.programs;
    this.#executables = new RunExecutables({ ...parts, vocabulary: parts.config.vocabulary });
    this.#session = new DecoderSession(parts.tensors, 'the decoder');
    this.#ahead = new RunAhead(parts.backend.polls ?? false);
  }

  /**
   * Plans the decode step and the largest run, and allocates everything. Weights are then written through `tensors`; `ropeFactors` are the values of `rope_freqs`. Where it is known that the first
   * prompt will have about `promptTokens` tokens, kernels begin to compile before anything is allocated, in the order in which they are needed.
   */
  static async create(
    backend: Backend,
    config: DecoderConfig,
    weights: ReadonlyMap<string, TensorType>,
    options: DecoderOptions,
    ropeFactors?: Float32Array,
    promptTokens?: number,
  ): Promise<Decoder> {
    const runs = decoderRuns(backend.kind, config, weights, options, backend.refuses);
    const programs = new RunPrograms(backend, runs);
    if (promptTokens !== undefined) {
      const { prompt, step } = runsOfPrompt(runs, promptTokens, 0);
      programs.beginCompiling(weights.values(), [...prompt, step]);
    }
    const planned = runsAtLoad(runs).map((run) => programs.of(run).plan);
    const tensors = new TensorStore(backend);
    try {
      const extent = { positions: options.contextLength, rows: mostRows(runs), ...(ropeFactors ? { ropeFactors } : {}) };
      await makeTensors(tensors, planned[0]?.graph, config, extent);
      return new Decoder({ backend, config, options, tensors, weights, banks: await allocateBanks(backend, planned), runs, programs });
    } catch (error) {
      tensors.dispose();
      throw error;
    }
  }

  /** Tokens that the cache holds. */
  get position(): number {
    return this.#position;
  }

  /** What the rewrites of the decode graph fused, and what not. */
  get rewrites(): readonly RewriteEntry[] {
    return this.#runs[0]?.report ?? [];
  }

  /** Distinct kernels of the decode step and of each prefill size. */
  kernels(): readonly { readonly rows: number; readonly kernels: readonly string[] }[] {
    return this.#runs.map((run) => ({ rows: run.rows, kernels: this.#programs.of(run).kernels }));
  }

  /** Compiles the runs that a prompt of `tokens` tokens needs (`prompt` is there when they are), and the decode step after it with its draw. Whatever else is asked for waits for its own kernels. */
  warm(tokens = 1): { readonly prompt: Promise<void>; readonly all: Promise<void> } {
    const runs = runsOfPrompt(this.#runs, tokens, this.#position);
    const prompt = settled(Promise.all(runs.prompt.map((run) => this.#executables.of(run))));
    const step = settled(this.#executables.drawing(runs.step));
    return { prompt, all: settled(Promise.all([prompt, step])) };
  }

  /** Forgets the cache's tokens from `position` on. Not in the middle of a run: BusyError. */
  rewind(position = 0): void {
    this.#checkIdle();
    if (!(Number.isInteger(position) && position >= 0 && position <= this.#position))
      throw new ArgumentError('position', `the cache holds ${this.#position} tokens, got ${position}`);
    if (position !== this.#position) this.#forgetAhead();
    this.#position = position;
  }

  /** Stands after `position` tokens with whatever the cache holds: for measuring long contexts without feeding them. @internal */
  assume(position: number): void {
    this.#checkIdle();
    if (!(Number.isInteger(position) && position >= 0 && position < this.options.contextLength))
      throw new ArgumentError('position', `the cache has room for ${this.options.contextLength} tokens, got ${position}`);
    this.#forgetAhead();
    this.#position = position;
  }

  /**
   * Feeds tokens; resolves with the most likely token after them.
   * @throws CentellaError E_NUMERICAL where a logit is not a number.
   */
  async nextToken(ids: readonly number[], signal?: AbortSignal): Promise<number> {
    const [bytes] = await this.#feed(ids, () => this.#session.chosen, signal);
    return this.#checkToken(tokensIn(bytes, 1)[0]);
  }

  /**
   * Feeds tokens and begins to draw: resolves with the token drawn after them. The draws that follow (`continueDrawn`) depend on the parameters, on the tokens drawn and on how many they are.
   * @throws CentellaError E_NUMERICAL where a logit is NaN or plus infinity, or none is finite.
   */
  async nextDrawn(ids: readonly number[], draw: Draw, signal?: AbortSignal): Promise<number> {
    const [bytes] = await this.#feed(ids, () => this.#session.chosen, signal, draw);
    return this.#checkToken(tokensIn(bytes, 1)[0]);
  }

  /** Feeds tokens; resolves with the logits after them, f32 [vocabulary]. */
  async nextLogits(ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    const [bytes] = await this.#feed(ids, ({ logits }) => [logits], signal);
    return f32Of(defined(bytes, 'the logits'));
  }

  /**
   * Goes on from the token that `nextToken` last gave, which the device has kept: nothing is uploaded. Resolves with the most likely token after it. Runs for the tokens after that one are on
   * their way already where the backend works beside this thread: `wanted` says how many tokens the caller may still take, this one included, so that none is begun in vain. Whatever else the decoder
   * is asked for forgets them; what they left in the cache is beyond `position` and is written over.
   * @throws CentellaError E_NUMERICAL where a logit is not a number.
   */
  continueGreedy(wanted = Number.POSITIVE_INFINITY): Promise<number> {
    return this.#continue(wanted, false);
  }

  /** As `continueGreedy`, from the token that `nextDrawn` last gave: resolves with the token drawn after it. */
  continueDrawn(wanted = Number.POSITIVE_INFINITY): Promise<number> {
    return this.#continue(wanted, true);
  }

  #continue(wanted: number, draws: boolean): Promise<number> {
    return this.#exclusive(async () => {
      checkRoom(1, this.#position, this.options.contextLength);
      if (!this.#canContinue || this.#draws !== draws)
        throw new ArgumentError(
          'decoder',
          `there is no ${draws ? 'drawn' : 'chosen'} token to go on from: call ${draws ? 'nextDrawn' : 'nextToken'} first, and again after rewind, evaluate and profile`,
        );
      const ahead = this.#ahead;
      const useful = Math.max(1, Math.min(wanted, this.options.contextLength - this.#position));
      while (ahead.submits < submitsAhead[this.backend.kind] && ahead.runs < useful) {
        try {
          await this.#runAhead(useful - ahead.runs);
        } catch (error) {
          this.#checkAlive();
          // Tokens that were asked for before come first: the call that has none of them left fails.
          if (ahead.runs === 0) throw error;
          break;
        }
      }
      try {
        const token = await ahead.next();
        // Runs over freed storage choose nothing.
        this.#checkAlive();
        this.#position++;
        return this.#checkToken(token);
      } catch (error) {
        this.#forgetAhead();
        throw error;
      }
    });
  }

  /** Submits runs for the tokens after those on their way: of the `left` tokens that may be wanted as many as one submit holds and one decode step's window takes. */
  async #runAhead(left: number): Promise<void> {
    const position = this.#position + this.#ahead.runs;
    const step = this.#runFor(1, position);
    const { executable } = await this.#continuing(step);
    this.#checkAlive();
    const runs = Math.min(left, this.#ahead.submitRuns, step.window - position);
    this.#ahead.add(runs, executable.start(noWrites, this.#session.chosen, runs));
    // One a submit: planning it takes a few milliseconds of this thread.
    const next = stepsAhead(this.#runs, position, left).find((later) => !this.#executables.isAsked(later, this.#draws));
    // Who needs it hears of its failure.
    if (next !== undefined) this.#continuing(next).catch(() => undefined);
  }

  #forgetAhead(): void {
    this.#ahead.forget();
    this.#canContinue = false;
  }

  /** Feeds tokens; resolves with the logits after each of them, f32 [ids, vocabulary]. The activations for it are allocated for the call. */
  async evaluate(ids: readonly number[]): Promise<Float32Array> {
    checkIds(ids, this.config.vocabulary);
    return this.#exclusive(async () => {
      checkRoom(ids.length, this.#position, this.options.contextLength);
      this.#forgetAhead();
      const { vocabulary } = this.config;
      const logits = new Float32Array(ids.length * vocabulary);
      const rows = Math.min(ids.length, this.options.prefillChunk);
      const { graph } = rewrite(decoderGraph(this.config, this.#weights, { ...this.options, rows, maxRows: mostRows(this.#runs), logits: 'all' }));
      const program = this.backend.program(graph);
      const banks = await allocateBanks(this.backend, [program.plan]);
      try {
        const executable = await program.prepare(this.tensors.bindings(program.plan, banks, new Map()));
        const region = new Arena(this.backend, program.plan, banks).outputRegion(decoderNames.logits);
        for (let start = 0; start < ids.length; start += rows) {
          const chunk = ids.slice(start, start + rows);
          const [bytes] = await executable.run(this.#writes(chunk), [region]);
          const values = f32Of(defined(bytes, 'the logits'));
          logits.set(values.subarray(0, chunk.length * vocabulary), start * vocabulary);
          this.#position += chunk.length;
        }
        return logits;
      } finally {
        for (const bank of banks) bank.free();
      }
    });
  }

  /** Times each step of the run that takes these tokens at the present position; the cache keeps its tokens. */
  async profile(ids: readonly number[]): Promise<readonly StepTiming[]> {
    checkIds(ids, this.config.vocabulary);
    return this.#exclusive(async () => {
      checkRoom(ids.length, this.#position, this.options.contextLength);
      this.#forgetAhead();
      const run = this.#runFor(ids.length);
      const { executable } = await this.#executables.of(run);
      await executable.run(this.#writes(ids));
      for (const { storage, offset, bytes } of this.#writes(ids)) await this.backend.write(storage, offset, bytes);
      const live = { rows: ids.length, positions: this.#position + ids.length };
      return withWork(await executable.profile(), this.#programs.of(run).plan, live);
    });
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    // The reads of a device that others use as well; a call in the middle of one ends with it.
    if (!this.#running) this.#ahead.forget();
    this.#executables.dispose();
    this.tensors.dispose();
  }

  /** Runs all chunks; reads after the last one only. */
  async #feed(
    ids: readonly number[],
    reads: (run: BoundRun) => readonly Region[],
    signal: AbortSignal | undefined,
    draw?: Draw,
  ): Promise<readonly Uint8Array[]> {
    return this.#exclusive(async () => {
      checkIds(ids, this.config.vocabulary);
      checkRoom(ids.length, this.#position, this.options.contextLength);
      this.#forgetAhead();
      let start = 0;
      let chunkBefore = Promise.resolve();
      let results: readonly Uint8Array[] = [];
      for (const rows of promptRuns(ids.length, sizesOf(this.#runs))) {
        throwIfAborted(signal, 'prefill');
        const run = this.#runFor(rows);
        const chunk = ids.slice(start, start + rows);
        start += rows;
        const draws = start === ids.length && draw !== undefined;
        const bound = await (draws ? this.#executables.drawing(run) : this.#executables.of(run));
        const writes = draws ? [...this.#writes(chunk), ...(await this.#executables.drawWrites(draw))] : this.#writes(chunk);
        this.#checkAlive();
        results = await bound.executable.run(writes, start === ids.length ? reads(bound) : []);
        this.#position += rows;
        // A run without reads resolves as soon as it is submitted: two chunks are on their way at most, and timers and signals are served meanwhile.
        await chunkBefore;
        if (start === ids.length) break;
        chunkBefore = this.backend.idle();
        // Heard by the next turn; a turn that an abort ends leaves it to whoever asks the device next.
        chunkBefore.catch(() => undefined);
      }
      this.#canContinue = true;
      this.#draws = draw !== undefined;
      return results;
    });
  }

  #runFor(rows: number, position = this.#position): DecoderRun {
    return runFor(this.#runs, rows, position);
  }

  /** A decode step that goes on as the run before it chose. */
  #continuing(run: DecoderRun): Promise<BoundRun> {
    return this.#draws ? this.#executables.drawing(run) : this.#executables.of(run);
  }

  /** The session state before a run over `ids` at the present position. */
  #writes(ids: readonly number[]): readonly RegionWrite[] {
    return this.#session.writes(this.#position, ids);
  }

  async #exclusive<T>(work: () => Promise<T>): Promise<T> {
    this.#checkIdle();
    this.#running = true;
    try {
      return await work();
    } finally {
      this.#running = false;
      if (this.#disposed) this.#ahead.forget();
    }
  }

  #checkAlive(): void {
    if (this.#disposed) throw new DisposedError('the decoder');
  }

  #checkIdle(): void {
    this.#checkAlive();
    if (this.#running) throw new BusyError('the decoder is in the middle of a run: await it first');
  }

  #checkToken(token: number | undefined): number {
    if (token !== undefined && token !== noToken) return token;
    this.#canContinue = false;
    throw new CentellaError('E_NUMERICAL', `the logits after ${this.#position} tokens are not finite: the weights or the device are broken`);
  }
}

/** `work` without its result. Who does not wait for it hears of its failure when he needs what it made. */
function settled(work: Promise<unknown>): Promise<void> {
  const done = work.then(() => undefined);
  done.catch(() => undefined);
  return done;
}

/** Rows that the runs take, ascending. */
function sizesOf(runs: readonly DecoderRun[]): readonly number[] {
  return runs.map(({ rows }) => rows);
}

function mostRows(runs: readonly DecoderRun[]): number {
  return runs.at(-1)?.rows ?? 1;
}

/** The runs that a prompt of `tokens` tokens at a position needs, in order, and the decode step after it. A full cache has no next position: then what would run after a rewind. */
function runsOfPrompt(runs: readonly DecoderRun[], tokens: number, position: number): { readonly prompt: readonly DecoderRun[]; readonly step: DecoderRun } {
  const last = (runs.at(-1)?.window ?? 1) - 1;
  const first = Math.min(position, last);
  return { prompt: promptRuns(tokens, sizesOf(runs)).map((rows) => runFor(runs, rows, first)), step: runFor(runs, 1, Math.min(position + tokens, last)) };
}

/** Submits on their way at once: a GPU works beside this thread, the CPU backend on it. */
const submitsAhead: { readonly [K in BackendKind]: number } = { webgpu: 4, cpu: 1 };

const noWrites: readonly RegionWrite[] = [];
