import { AbortedError, ArgumentError, ContextError, DisposedError } from '../core/errors.js';
import type { Decoder } from '../model/decoder.js';
import type { StreamDecoder } from '../text/index.js';
import { isGreedy, type LogitsHook, type ResolvedSampling, Sampler } from './sampler.js';
import { StopText } from './stop-text.js';

/** Why a generation ended: an end token, a stop string or token, `maxTokens`, a full context, or the caller. */
export type FinishReason = 'eos' | 'stop' | 'length' | 'context' | 'aborted';

/** New text with the tokens generated since the piece before. Text may lag behind: a character may need several tokens, and what may begin a stop string is held back. */
export interface GenerationChunk {
  readonly text: string;
  readonly tokens: readonly number[];
}

/** Milliseconds by the clock. */
export interface Timings {
  /** From the call to the first token. */
  readonly promptMs: number;
  /** Prompt tokens that were fed: none where the generation ended before. */
  readonly promptTokens: number;
  /** From the first token to the last. */
  readonly generationMs: number;
  readonly generatedTokens: number;
  readonly promptTokensPerSecond: number;
  /** Tokens after the first one over their time; 0 where there was none. */
  readonly generationTokensPerSecond: number;
}

/** Where tokens are chosen: on the device, which then needs no answer to go on, or on the host, a row of logits at a time, which is slower and only done for `adjustLogits`. */
export type ChosenOn = 'device' | 'host';

/** A text that has ended. */
export interface GenerationResult {
  readonly text: string;
  /** Generated ids; an end or stop token is not among them. */
  readonly tokens: readonly number[];
  readonly finishReason: FinishReason;
  readonly timings: Timings;
  readonly chosenOn: ChosenOn;
}

export interface GenerationPlan {
  readonly decoder: Decoder;
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly sampling: ResolvedSampling;
  readonly adjustLogits: LogitsHook | undefined;
  readonly stops: readonly string[];
  readonly stopTokens: ReadonlySet<number>;
  readonly endTokens: ReadonlySet<number>;
  readonly text: StreamDecoder;
  readonly signal: AbortSignal | undefined;
  /** Whether the model has been disposed: an error then says so, whatever it met first. */
  readonly disposed: () => boolean;
  /** Called once, however the generation ends. */
  readonly onEnd: () => void;
}

/**
 * A text being written, from the call on. Iterate it for pieces (`break` cancels), await `result`, or both. An abort ends it with the reason 'aborted' and what was written until then; an
 * error ends the iteration, after all pieces written until then, and rejects `result`.
 */
export class Generation implements AsyncIterable<GenerationChunk> {
  /** Everything at once, when the generation has ended. */
  readonly result: Promise<GenerationResult>;
  readonly #plan: GenerationPlan;
  readonly #queue = new ChunkQueue();
  readonly #started = performance.now();
  readonly #tokens: number[] = [];
  #firstToken = 0;
  #lastToken = 0;
  #cancelled = false;

  constructor(plan: GenerationPlan) {
    this.#plan = plan;
    this.result = this.#run();
    // An error reaches the caller through `result` or the iteration, whenever he turns to either: until then it must not end the process.
    this.result.catch(() => undefined);
  }

  /** The pieces from the first one on; every iterator of one generation shares them. */
  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationChunk, void, void> {
    try {
      for (let chunk = await this.#queue.next(); chunk !== undefined; chunk = await this.#queue.next()) yield chunk;
      await this.result;
    } finally {
      this.#cancelled = true;
      await this.result.catch(() => undefined);
    }
  }

  async #run(): Promise<GenerationResult> {
    let text = '';
    try {
      const stop = new StopText(this.#plan.stops);
      let pending: number[] = [];
      const emit = (piece: string): void => {
        text += piece;
        if (piece !== '' || pending.length > 0) this.#queue.push({ text: piece, tokens: pending });
        pending = [];
      };
      const emitRest = (): boolean => {
        const rest = stop.push(this.#plan.text.flush());
        emit(rest.stopped ? rest.text : rest.text + stop.flush());
        return rest.stopped;
      };
      let reason: FinishReason = 'aborted';
      try {
        for await (const step of this.#steps()) {
          if (step.end !== undefined) {
            reason = step.end;
            break;
          }
          pending.push(step.token);
          const piece = stop.push(this.#plan.text.push(step.token));
          if (piece.text !== '' || piece.stopped) emit(piece.text);
          if (piece.stopped) return this.#finish(text, 'stop');
        }
      } catch (error) {
        // What was held back has been written all the same: it comes before the error.
        emitRest();
        throw error instanceof DisposedError && this.#plan.disposed() ? new DisposedError('the model', { cause: error }) : error;
      }
      const stopped = emitRest();
      return this.#finish(text, stopped ? 'stop' : reason);
    } finally {
      this.#plan.onEnd();
      this.#queue.close();
    }
  }

  #finish(text: string, finishReason: FinishReason): GenerationResult {
    const chosenOn = this.#plan.adjustLogits === undefined ? 'device' : 'host';
    return { text, tokens: [...this.#tokens], finishReason, timings: this.#timings(), chosenOn };
  }

  /** Tokens one by one, and at last why there are no more. */
  async *#steps(): AsyncGenerator<{ token: number; end?: undefined } | { end: FinishReason }, void, void> {
    const { decoder, prompt, maxTokens, signal } = this.#plan;
    const choose = chooserFor(this.#plan, this.#tokens);
    let input: readonly number[] = prompt;
    for (;;) {
      if (signal?.aborted || this.#cancelled) return yield { end: 'aborted' };
      if (this.#tokens.length >= maxTokens) return yield { end: 'length' };
      if (decoder.position + input.length > decoder.options.contextLength) return yield { end: 'context' };
      const token = await choose(input, signal).catch(abortedAsUndefined);
      if (token === undefined) return yield { end: 'aborted' };
      const now = performance.now();
      if (input === prompt) this.#firstToken = this.#lastToken = now;
      if (this.#plan.endTokens.has(token)) return yield { end: 'eos' };
      if (this.#plan.stopTokens.has(token)) return yield { end: 'stop' };
      this.#lastToken = now;
      this.#tokens.push(token);
      yield { token };
      input = [token];
    }
  }

  #timings(): Timings {
    const generatedTokens = this.#tokens.length;
    const promptMs = this.#firstToken === 0 ? performance.now() - this.#started : this.#firstToken - this.#started;
    const generationMs = this.#lastToken - this.#firstToken;
    const promptTokens = this.#firstToken === 0 ? 0 : this.#plan.prompt.length;
    return {
      promptMs,
      promptTokens,
      generationMs,
      generatedTokens,
      promptTokensPerSecond: promptMs > 0 ? (promptTokens / promptMs) * 1000 : 0,
      generationTokensPerSecond: generationMs > 0 ? ((generatedTokens - 1) / generationMs) * 1000 : 0,
    };
  }
}

type Chooser = (input: readonly number[], signal: AbortSignal | undefined) => Promise<number>;

function chooserFor({ decoder, prompt, maxTokens, sampling, adjustLogits }: GenerationPlan, tokens: readonly number[]): Chooser {
  if (adjustLogits !== undefined) return hostChooser(decoder, new Sampler(sampling, prompt), (logits) => adjustLogits(logits, tokens));
  if (isGreedy(sampling)) {
    return deviceChooser(
      maxTokens,
      (input, signal) => decoder.nextToken(input, signal),
      (wanted) => decoder.continueGreedy(wanted),
    );
  }
  return deviceChooser(
    maxTokens,
    (input, signal) => decoder.nextDrawn(input, { parameters: sampling, prompt }, signal),
    (wanted) => decoder.continueDrawn(wanted),
  );
}

/** The device chooses and feeds its choice back to itself: after the prompt nothing is uploaded. */
function deviceChooser(maxTokens: number, begin: Chooser, goOn: (wanted: number) => Promise<number>): Chooser {
  let chosen = 0;
  return (input, signal) => (chosen++ === 0 ? begin(input, signal) : goOn(maxTokens - chosen + 1));
}

function hostChooser(decoder: Decoder, sampler: Sampler, adjust: (logits: Float32Array) => unknown): Chooser {
  return async (input, signal) => {
    const logits = await decoder.nextLogits(input, signal);
    const waits: unknown = adjust(logits);
    if (waits instanceof Promise) {
      waits.catch(() => undefined);
      throw new ArgumentError(
        'adjustLogits',
        'adjustLogits changes the logits before it returns, got an async function: the token would be chosen before it is done',
      );
    }
    return sampler.next(logits);
  };
}

function abortedAsUndefined(error: unknown): undefined {
  if (error instanceof AbortedError) return undefined;
  throw error;
}

/** Pieces on their way from the generation to whoever iterates it. */
class ChunkQueue {
  readonly #chunks: GenerationChunk[] = [];
  readonly #waiting: ((chunk: GenerationChunk | undefined) => void)[] = [];
  #closed = false;

  push(chunk: GenerationChunk): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#chunks.push(chunk);
    else waiting(chunk);
  }

  /** The next piece, or undefined after the last. */
  next(): Promise<GenerationChunk | undefined> {
    const chunk = this.#chunks.shift();
    if (chunk !== undefined || this.#closed) return Promise.resolve(chunk);
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  close(): void {
    this.#closed = true;
    for (const waiting of this.#waiting.splice(0)) waiting(undefined);
  }
}

/** Throws `ContextError` unless the prompt fits: a full context still gives the one token that follows it. */
export function assertPromptFits(tokens: number, contextLength: number): void {
  if (tokens <= contextLength) return;
  throw new ContextError(`the prompt has ${tokens} tokens, the context ${contextLength}: shorten the prompt or load the model with a longer context`, {
    tokens,
    contextLength,
  });
}
