import { ArgumentError, BusyError, DisposedError, shown } from '../core/errors.js';
import type { MemoryLedger } from '../core/memory.js';
import type { Decoder } from '../model/decoder.js';
import type { DecoderConfig } from '../model/decoder-config.js';
import type { Backend, BackendKind, Ceilings, StepTiming } from '../runtime/backend.js';
import type { Tokenizer } from '../text/index.js';
import { checkTokenIds, type GenerateOptions, isList, type Prompt, resolveOptions } from './generate-options.js';
import { assertPromptFits, Generation } from './generation.js';

/** Milliseconds of loading a model; the parts follow each other. */
export interface LoadTimings {
  readonly totalMs: number;
  /** The file's header. */
  readonly headerMs: number;
  /** Opening the backend. */
  readonly deviceMs: number;
  /** Planning the first runs, beginning to compile them, and allocating what they and the weights need. */
  readonly planMs: number;
  readonly tokenizerMs: number;
  /** Reading, uploading and rearranging the weights; kernels are compiled meanwhile. */
  readonly weightsMs: number;
  /** Waiting for kernels that were not there yet when the weights were. */
  readonly kernelsMs: number;
  readonly weightBytes: number;
}

/** Which run is timed. */
export interface ProfileOptions {
  /** Tokens of the run: 1 (the default) decodes, more are a prompt's, at most what one run takes. */
  readonly tokens?: number;
  /** Tokens that the cache holds before it. Default 0. */
  readonly after?: number;
}

/** Where a model runs. */
export interface BackendReport {
  readonly kind: BackendKind;
  readonly name: string;
  /** Why this one. */
  readonly reason: string;
  readonly checks: string;
}

/** A loaded model. One generation at a time; `dispose()` frees everything. */
export class Model {
  /** Hyperparameters, as the decoder uses them. */
  readonly config: DecoderConfig;
  /** Text to token ids and back. */
  readonly tokenizer: Tokenizer;
  /** Positions of the KV cache: most tokens of prompt and text together. */
  readonly contextLength: number;
  /** How long loading took. */
  readonly loadTimings: LoadTimings;
  readonly #backend: Backend;
  readonly #decoder: Decoder;
  readonly #ownsBackend: boolean;
  #busy = false;
  #disposed = false;

  /** @internal Use `loadModel`. */
  constructor(parts: { backend: Backend; decoder: Decoder; tokenizer: Tokenizer; loadTimings: LoadTimings; ownsBackend: boolean }) {
    this.config = parts.decoder.config;
    this.tokenizer = parts.tokenizer;
    this.contextLength = parts.decoder.options.contextLength;
    this.loadTimings = parts.loadTimings;
    this.#backend = parts.backend;
    this.#decoder = parts.decoder;
    this.#ownsBackend = parts.ownsBackend;
  }

  /** Where the model runs, and why there. */
  get backend(): BackendReport {
    const { kind, name, reason, checks } = this.#backend;
    return { kind, name, reason, checks };
  }

  /**
   * Writes on from a prompt, at once: the generation runs whether it is iterated or not.
   * @throws BusyError while another generation runs; ContextError where the prompt is longer than the context; ArgumentError for options out of range.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    this.#checkIdle();
    const ids = this.encodePrompt(prompt);
    assertPromptFits(ids.length, this.contextLength);
    const resolved = resolveOptions(options, this.config.vocabulary);
    const text = this.tokenizer.createDecoder({ after: ids.at(-1) ?? 0 });
    this.#decoder.rewind(0);
    this.#busy = true;
    const onEnd = (): void => {
      this.#busy = false;
    };
    const disposed = (): boolean => this.#disposed;
    return new Generation({ ...resolved, decoder: this.#decoder, prompt: ids, endTokens: new Set(this.tokenizer.eogIds), text, disposed, onEnd });
  }

  /** The ids that `generate` would feed for a prompt. An empty one becomes BOS alone. */
  encodePrompt(prompt: Prompt): readonly number[] {
    if (typeof prompt !== 'string' && !isList(prompt)) throw new ArgumentError('prompt', `a prompt is a text or a list of token ids, got ${shown(prompt)}`);
    // A copy: the caller's list may change while it is fed.
    const ids = typeof prompt === 'string' ? this.tokenizer.encode(prompt, { bos: 'auto' }) : Array.from(prompt);
    checkTokenIds('prompt', ids, this.config.vocabulary);
    if (ids.length > 0) return ids;
    if (this.tokenizer.bosId === undefined)
      throw new ArgumentError('prompt', 'the prompt is empty and the model has no BOS token to begin with: give a prompt');
    return [this.tokenizer.bosId];
  }

  /** The logits after each of the ids, f32 [ids, vocabulary], from an empty cache. */
  async evaluate(ids: readonly number[]): Promise<Float32Array> {
    this.#checkIdle();
    if (!isList(ids)) throw new ArgumentError('ids', `logits are wanted after a list of token ids, got ${shown(ids)}`);
    assertPromptFits(ids.length, this.contextLength);
    return this.#alone(() => this.#decoder.evaluate(ids));
  }

  /**
   * Device time of each step of one run, with its bytes and operations: the run that takes `tokens` tokens after `after` others.
   * @throws UnsupportedError where the device has no clock for it; BusyError, ContextError, ArgumentError as for `generate`.
   */
  async profile({ tokens = 1, after = 0 }: ProfileOptions = {}): Promise<readonly StepTiming[]> {
    this.#checkIdle();
    for (const [name, value, least] of [
      ['tokens', tokens, 1],
      ['after', after, 0],
    ] as const)
      if (!(Number.isSafeInteger(value) && value >= least)) throw new ArgumentError(name, `${name} must be a whole number from ${least}, got ${value}`);
    return this.#alone(async () => {
      const filler = (count: number): number[] => new Array<number>(count).fill(this.tokenizer.bosId ?? 0);
      if (after > 0) await this.#decoder.nextToken(filler(after));
      return this.#decoder.profile(filler(Math.min(tokens, this.#decoder.options.prefillChunk)));
    });
  }

  /** Whether `profile` and `ceilings` can time anything here: a GPU without timestamp queries has no clock for them. */
  get timesSteps(): boolean {
    return this.#backend.timesSteps;
  }

  /** What the device reaches, measured now in a fraction of a second: what profiles are held against. Undefined where nothing measures it. @throws UnsupportedError as `profile` */
  async ceilings(): Promise<Ceilings | undefined> {
    this.#check();
    return this.#backend.ceilings?.();
  }

  /** What generates, for benchmarks; not while a generation runs. @internal */
  get decoder(): Decoder {
    this.#check();
    return this.#decoder;
  }

  /** Bytes in use, by class and label. */
  ledger(): MemoryLedger {
    return this.#backend.ledger();
  }

  /** Frees the weights, the cache and, where the model opened it, the device. A generation that runs ends with `DisposedError`, in its iteration and in `result`. Again is no error. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#decoder.dispose();
    if (this.#ownsBackend) this.#backend.dispose();
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Runs `work` from an empty cache, with no generation beside it. */
  async #alone<T>(work: () => Promise<T>): Promise<T> {
    this.#busy = true;
    try {
      this.#decoder.rewind(0);
      return await work();
    } finally {
      this.#busy = false;
    }
  }

  #checkIdle(): void {
    this.#check();
    if (this.#busy) throw new BusyError('a generation is running on this model: await or cancel it first, or load the model twice');
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('the model');
  }
}
