import { f32Of } from '../core/bytes.js';
import { ArgumentError, FormatError, shown, throwIfAborted } from '../core/errors.js';
import type { TensorType } from '../core/tensor.js';
import { type GgufFile, type GgufSource, openGguf } from '../formats/gguf/index.js';
import { Decoder } from '../model/decoder.js';
import type { DecoderConfig } from '../model/decoder-config.js';
import type { CacheType } from '../model/decoder-graph.js';
import type { DecoderOptions } from '../model/decoder-runs.js';
import { describeModel } from '../model/describe.js';
import { tensorNames } from '../model/tensors.js';
import type { Backend } from '../runtime/backend.js';
import { type BackendOptions, openBackend } from '../runtime/select.js';
import type { TensorWriter } from '../runtime/tensor-writer.js';
import { loadTokenizer, type Tokenizer } from '../text/index.js';

import { checkSignal } from './generate-options.js';
import { Model } from './model.js';

/** Bytes of weights, as stored in the file. */
export interface LoadProgress {
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

/** Where a model runs, and how much context it has. */
export interface LoadOptions extends BackendOptions {
  /** Positions of the KV cache. Default: what the model was trained for, at most 4096. */
  readonly contextLength?: number;
  /** Type of the KV cache. Default: 'f16', half the memory, where the GPU computes with f16; else 'f32'. 'q8_0' is about half of f16, for heads of whole blocks of 32. */
  readonly cacheType?: CacheType;
  /** Most prompt tokens in one run. Default: 2048 on GPUs with matrix units, else 512. */
  readonly prefillChunk?: number;
  /** About how many tokens the first prompt will have: kernels for it are compiled first, while the weights stream. Default: the decode step's are, and others when a prompt comes. */
  readonly promptTokens?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
  /** What is odd about the file without making it unusable. Nothing is ever printed. */
  readonly onWarning?: (message: string) => void;
}

/** The default context is what the model was trained for, at most this. */
export const defaultContext = 4096;
/** Prompt tokens of one run, by default, on backends without matrix units. */
const defaultChunk = 512;

/** With matrix units, weights are decoded once for a run: long runs share the cost, and fill the tiles. */
const matrixChunk = 2048;

/**
 * Loads a GGUF model: from a path (Node, Deno, Bun), a URL, a Blob, bytes, or the list of a split model's parts. Weights stream to the device; the file is never held in memory. Resolves when
 * the weights are there and the kernels that a first prompt of `promptTokens` tokens needs; those of the steps after it may still be compiling, and are waited for by who needs them.
 * @throws FormatError for a malformed file, UnsupportedError for one that this build cannot run, OutOfMemoryError, AbortedError, and what `openBackend` throws.
 */
export async function loadModel(source: GgufSource, options: LoadOptions = {}): Promise<Model> {
  const started = performance.now();
  const { signal } = options;
  checkListeners(options);
  throwIfAborted(signal, 'loading the model');
  const file = await openGguf(source, signal ? { signal } : {});
  const model = await loadFrom(file, options, started).catch(async (error: unknown) => {
    // What went wrong first is what the caller should hear of.
    await file.close().catch(() => undefined);
    throw error;
  });
  try {
    await file.close();
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

async function loadFrom(file: GgufFile, options: LoadOptions, started: number): Promise<Model> {
  const { signal } = options;
  const clock = stopwatch(started);
  for (const warning of file.warnings) options.onWarning?.(warning);
  const { config, weights } = describeModel(file);
  warnOfUnread(file, weights, options);
  const contextLength = contextFor(config, options);
  const promptTokens = Math.min(options.promptTokens ?? 1, contextLength);
  const headerMs = clock();
  const backend = await openBackend(options);
  const deviceMs = clock();
  let decoder: Decoder | undefined;
  try {
    const ropeFactors = await readRopeFactors(file, signal);
    const session = { contextLength, ...sessionDefaults(backend, config, contextLength, options) };
    decoder = await Decoder.create(backend, config, weights, session, ropeFactors, promptTokens);
    const kernels = decoder.warm(promptTokens);
    const planMs = clock();
    // Kernels compile on threads of their own, now and while the weights stream.
    const tokenizer = loadTokenizer(file);
    for (const warning of tokenizer.warnings) options.onWarning?.(warning);
    checkVocabularySize(tokenizer, config);
    const tokenizerMs = clock();
    const weightBytes = await uploadWeights(file, decoder, options);
    await backend.idle();
    const weightsMs = clock();
    await kernels.prompt;
    const kernelsMs = clock();
    const loadTimings = { totalMs: performance.now() - started, headerMs, deviceMs, planMs, tokenizerMs, weightsMs, kernelsMs, weightBytes };
    return new Model({ backend, decoder, tokenizer, loadTimings, ownsBackend: true });
  } catch (error) {
    decoder?.dispose();
    backend.dispose();
    throw error;
  }
}

/** What suits the backend, where the caller has not chosen. An f16 cache holds pairs: heads of an odd width stay f32. */
export function sessionDefaults(
  { arithmetic: { halves, matrices } }: Pick<Backend, 'arithmetic'>,
  { headWidth }: Pick<DecoderConfig, 'headWidth'>,
  contextLength: number,
  { cacheType, prefillChunk }: LoadOptions = {},
): Pick<DecoderOptions, 'cacheType' | 'prefillChunk'> {
  return {
    cacheType: cacheType ?? (halves && headWidth % 2 === 0 ? 'f16' : 'f32'),
    prefillChunk: Math.min(prefillChunk ?? (matrices ? matrixChunk : defaultChunk), contextLength),
  };
}

const cacheTypes: ReadonlySet<CacheType> = new Set(['f32', 'f16', 'q8_0']);

/** A listener that cannot listen would be met when the first weights are there. */
function checkListeners({ signal, onProgress, onWarning }: LoadOptions): void {
  checkSignal(signal);
  for (const [name, listener] of Object.entries({ onProgress, onWarning }))
    if (listener !== undefined && typeof listener !== 'function') throw new ArgumentError(name, `${name} must be a function, got ${shown(listener)}`);
}

function contextFor(config: DecoderConfig, options: LoadOptions): number {
  const { contextLength = Math.min(config.trainedContext, defaultContext), prefillChunk = defaultChunk, promptTokens = 1 } = options;
  for (const [name, value] of [
    ['contextLength', contextLength],
    ['prefillChunk', prefillChunk],
    ['promptTokens', promptTokens],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1) throw new ArgumentError(name, `${name} must be a whole number from 1, got ${value}`);
  }
  const { cacheType } = options;
  if (cacheType !== undefined && !cacheTypes.has(cacheType))
    throw new ArgumentError('cacheType', `the KV cache is one of ${[...cacheTypes].join(', ')}, got ${JSON.stringify(cacheType)}`);
  if (contextLength > config.trainedContext)
    options.onWarning?.(`a context of ${contextLength} is longer than the ${config.trainedContext} that the model was trained for`);
  return contextLength;
}

/** A vocabulary may be padded in the embedding, never the other way round: a token without a row could not be fed. */
function checkVocabularySize(tokenizer: Tokenizer, config: DecoderConfig): void {
  if (tokenizer.vocabSize <= config.vocabulary) return;
  const message = `the vocabulary has ${tokenizer.vocabSize} tokens, ${tensorNames.embedding} only ${config.vocabulary} rows`;
  throw new FormatError('E_VOCAB', message, { key: 'tokenizer.ggml.tokens' });
}

function warnOfUnread(file: GgufFile, weights: ReadonlyMap<string, TensorType>, options: LoadOptions): void {
  const unread = [...file.tensors.keys()].filter((name) => !weights.has(name));
  if (unread.length > 0) options.onWarning?.(`${unread.length} tensors of the file are not read by this architecture: ${unread.slice(0, 3).join(', ')}`);
}

async function readRopeFactors(file: GgufFile, signal: AbortSignal | undefined): Promise<Float32Array | undefined> {
  if (!file.tensors.has(tensorNames.ropeFactors)) return undefined;
  return f32Of(await file.readTensor(tensorNames.ropeFactors, signal));
}

/** Reads on their way at once, each on a thread of its own: one alone does not keep up with the bus. */
const readsAhead = 4;

/** Streams every weight that the decoder holds, in the file's order and by whole groups of rows; resolves with their bytes. */
async function uploadWeights(file: GgufFile, decoder: Decoder, { signal, onProgress }: LoadOptions): Promise<number> {
  const names = [...file.tensors.keys()].filter((name) => decoder.tensors.get(name) !== undefined);
  const totalBytes = names.reduce((sum, name) => sum + (file.tensors.get(name)?.byteLength ?? 0), 0);
  let loadedBytes = 0;
  let writer: TensorWriter | undefined;
  const unitBytes = ({ name }: { readonly name: string }): number => decoder.tensors.unitBytes(name);
  for await (const { tensor, offset, bytes } of file.streamTensors(names, { reads: readsAhead, reuse: true, unitBytes, signal })) {
    if (offset === 0) {
      await writer?.finish();
      writer = decoder.tensors.writer(tensor.name);
    }
    await writer?.push(bytes);
    loadedBytes += bytes.byteLength;
    onProgress?.({ loadedBytes, totalBytes });
    throwIfAborted(signal, 'loading the model');
  }
  await writer?.finish();
  return totalBytes;
}

/** Milliseconds since the call before, or since `started`. */
function stopwatch(started: number): () => number {
  let before = started;
  return () => {
    const now = performance.now();
    const passed = now - before;
    before = now;
    return passed;
  };
}
