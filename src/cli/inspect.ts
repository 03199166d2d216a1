import type { Command } from 'commander';
import { baseCapabilities } from '../core/capabilities.js';
import { CentellaError } from '../core/errors.js';
import { defaultContext, sessionDefaults } from '../engine/load.js';
import { type GgufFile, openGguf } from '../formats/gguf/index.js';
import { type AdapterChoice, chooseAdapter } from '../gpu/adapter.js';
import { gpuArithmetic } from '../kernels/target.js';
import type { CacheType } from '../model/decoder-graph.js';
import type { DecoderOptions } from '../model/decoder-runs.js';
import type { ModelDescription } from '../model/describe.js';
import type { Hyperparameters } from '../model/hyperparameters.js';
import { bytesByType, inspectHyperparameters, type MemoryNeeded, memoryNeeded, runnable, type TypeUse } from '../model/inspect.js';
import type { Backend } from '../runtime/backend.js';
import { checkVocabulary, type VocabularySummary } from '../text/index.js';
import { formatBytes, formatCount, formatTable, plural, printable } from './format.js';
import { addCacheOption, addDeviceOptions, backendOptions, type DeviceOptions, wholeNumber } from './options.js';
import { type Session, warn } from './session.js';

interface InspectOptions extends DeviceOptions {
  readonly context?: number;
  readonly kv?: CacheType;
  readonly json?: true;
}

/** Everything that is told of a file. Absent: undefined. */
interface Inspection {
  readonly file: string;
  readonly version: number;
  readonly name: string | undefined;
  readonly architecture: string | undefined;
  readonly hyperparameters: Hyperparameters | undefined;
  readonly vocabulary: VocabularySummary | undefined;
  readonly tensors: readonly { readonly name: string; readonly type: string; readonly shape: readonly number[]; readonly bytes: number }[];
  readonly types: readonly TypeUse[];
  readonly memory: Memory | { readonly reason: string };
}

interface Memory {
  readonly context: number;
  /** The WebGPU adapter that `webgpu` counts for; null where none was chosen: then it counts for a device with WebGPU's guaranteed limits and no feature. */
  readonly adapter: string | null;
  /** Types of the KV cache. */
  readonly kv: { readonly webgpu: CacheType; readonly cpu: CacheType };
  /** Most prompt tokens in one run, which the activations grow with. */
  readonly chunk: { readonly webgpu: number; readonly cpu: number };
  readonly webgpu: MemoryNeeded;
  readonly cpu: MemoryNeeded;
}

const examples = `Examples:
  centella inspect model.gguf                     architecture, tensors, bytes by type, memory needed
  centella inspect model.gguf --context 32768     memory with a context of that length
  centella inspect model.gguf --adapter 1         memory on another adapter than the one that loading would take
  centella inspect model.gguf --json              the same as one JSON object
`;

export function addInspect(program: Command, session: Session): void {
  const command = program
    .command('inspect')
    .summary('show what a model file holds and needs')
    .description(
      'Checks a GGUF file (container, vocabulary, hyperparameters) and shows what it holds and how much memory it takes on this machine once loaded. Weights are not read.',
    )
    .argument('<file>', 'a GGUF file, its URL, or the first file of a split model')
    .option('--context <n>', 'positions of the context (default: what the model was trained for, at most 4096)', wholeNumber(1))
    .option('--json', 'one JSON object; what the file does not say is null')
    .addHelpText('before', examples);
  addDeviceOptions(addCacheOption(command), { checked: false }).action((source: string, options: InspectOptions) => inspect(session, source, options));
}

async function inspect(session: Session, source: string, options: InspectOptions): Promise<void> {
  const file = await openGguf(source, { signal: session.signal });
  try {
    for (const message of file.warnings) warn(session, message);
    const found = await inspectFile(file, options);
    await session.terminal.write(options.json ? `${printable(JSON.stringify(jsonInspection(found, file.warnings)))}\n` : textInspection(found));
  } finally {
    await file.close();
  }
}

async function inspectFile(file: GgufFile, options: InspectOptions): Promise<Inspection> {
  const vocabulary = checkVocabulary(file);
  const hyperparameters = inspectHyperparameters(file);
  const described = runnable(file);
  return {
    file: file.name,
    version: file.version,
    name: file.getString('general.name'),
    architecture: hyperparameters?.architecture,
    hyperparameters,
    vocabulary,
    tensors: [...file.tensors.values()].map(({ name, dtype, shape, byteLength }) => ({ name, type: dtype, shape, bytes: byteLength })),
    types: bytesByType(file.tensors.values()),
    memory: 'model' in described ? memoryOf(described.model, options, await adapterFor(options)) : described,
  };
}

/** The adapter that loading with these options would take; undefined where that is the CPU. No device is made. */
async function adapterFor(options: InspectOptions): Promise<Pick<AdapterChoice, 'name' | 'capabilities'> | undefined> {
  const { device, adapter } = backendOptions(options);
  if (device === 'cpu') return undefined;
  try {
    return await chooseAdapter({ ...(adapter === undefined ? {} : { adapter }), ...(device === 'auto' ? { software: 'refuse' } : {}) });
  } catch (error) {
    if (device === 'auto' && error instanceof CentellaError && (error.code === 'E_NO_WEBGPU' || error.code === 'E_NO_ADAPTER')) return undefined;
    throw error;
  }
}

/** What `loadModel` would take, by its own defaults. */
function memoryOf(model: ModelDescription, { context: wanted, kv }: InspectOptions, adapter: Awaited<ReturnType<typeof adapterFor>>): Memory {
  const context = wanted ?? Math.min(model.config.trainedContext, defaultContext);
  const capabilities = adapter?.capabilities ?? baseCapabilities;
  const defaults = (arithmetic: Backend['arithmetic']): DecoderOptions => {
    return { contextLength: context, ...sessionDefaults({ arithmetic }, model.config, context, kv === undefined ? {} : { cacheType: kv }) };
  };
  const options = { webgpu: defaults(gpuArithmetic(capabilities)), cpu: defaults({ halves: false, matrices: false }) };
  return {
    context,
    adapter: adapter?.name ?? null,
    kv: { webgpu: options.webgpu.cacheType, cpu: options.cpu.cacheType },
    chunk: { webgpu: options.webgpu.prefillChunk, cpu: options.cpu.prefillChunk },
    webgpu: memoryNeeded(model, options.webgpu, capabilities),
    cpu: memoryNeeded(model, options.cpu, 'cpu'),
  };
}

/** As the keys of the file are named, after the architecture. */
function hyperparameterRows(hp: Hyperparameters | undefined): readonly (readonly [name: string, value: number | string | undefined])[] {
  return [
    ['block_count', hp?.blockCount],
    ['context_length', hp?.contextLength],
    ['embedding_length', hp?.embeddingLength],
    ['feed_forward_length', hp?.feedForwardLength],
    ['attention.head_count', hp?.headCount],
    ['attention.head_count_kv', hp?.headCountKv],
    ['attention.key_length', hp?.keyLength],
    ['attention.value_length', hp?.valueLength],
    ['attention.layer_norm_rms_epsilon', hp?.rmsEpsilon],
    ['rope.dimension_count', hp?.ropeDimensionCount],
    ['rope.freq_base', hp?.ropeBase],
    ['rope.scaling.type', hp?.ropeScaling],
    ['rope.scaling.factor', hp?.ropeScalingFactor],
  ];
}

function textInspection(found: Inspection): string {
  const elements = found.types.reduce((sum, use) => sum + use.elements, 0);
  const head = formatTable([
    ['file', `${found.file} (GGUF version ${found.version})`],
    ['architecture', found.architecture ?? 'unknown'],
    ['name', found.name ?? 'unknown'],
    ['parameters', `${formatCount(elements)} in ${plural(found.tensors.length, 'tensor')}`],
    ['vocabulary', vocabularyText(found.vocabulary)],
  ]);
  const numbers = formatTable(
    hyperparameterRows(found.hyperparameters).map(([name, value]) => [name, value === undefined ? 'unknown' : shortNumber(value)]),
    '  ',
  );
  const types = formatTable(
    found.types.map(({ dtype, tensors, bytes }) => [dtype, plural(tensors, 'tensor'), formatBytes(bytes)]),
    '  ',
  );
  const tensors = formatTable(
    found.tensors.map(({ name, type, shape, bytes }) => [name, `${type} [${shape.join(', ')}]`, formatBytes(bytes)]),
    '  ',
  );
  return `${head}\nhyperparameters\n${numbers}\nmemory needed\n${memoryText(found.memory)}\nbytes by type\n${types}\ntensors\n${tensors}`;
}

/** As the f32 of the file was written: 0.00001, not the f64 beside it. */
function shortNumber(value: number | string): string {
  return typeof value === 'string' || Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(7)));
}

function vocabularyText(vocabulary: VocabularySummary | undefined): string {
  if (vocabulary === undefined) return 'none';
  const { model = 'unknown', pre, vocabSize, merges, special } = vocabulary;
  const ids = Object.entries(special).map(([name, id]) => `${name} ${id}`);
  return [`${model}${pre === undefined ? '' : ` (${pre})`}`, plural(vocabSize, 'token'), plural(merges, 'merge'), ...ids].join(', ');
}

function memoryText(memory: Inspection['memory']): string {
  if ('reason' in memory) return `  unknown: ${printable(memory.reason)}\n`;
  const { context, adapter, kv, chunk, webgpu, cpu } = memory;
  const row = (label: string, part: keyof MemoryNeeded): string[] => [label, formatBytes(webgpu[part]), formatBytes(cpu[part])];
  return formatTable(
    [
      [`at a context of ${context}`, adapter ?? 'any WebGPU device', 'CPU'],
      row('weights', 'weights'),
      row(`KV cache (${kv.webgpu === kv.cpu ? kv.cpu : `${kv.webgpu}, ${kv.cpu}`})`, 'kv'),
      row(`activations (runs of ${chunk.webgpu === chunk.cpu ? chunk.cpu : `${chunk.webgpu}, ${chunk.cpu}`})`, 'arena'),
      row('tables and state', 'other'),
      row('in all', 'total'),
    ],
    '  ',
  );
}

function jsonInspection(found: Inspection, warnings: readonly string[]): object {
  const { file, version, name, architecture, hyperparameters, vocabulary, tensors, types, memory } = found;
  return {
    file,
    gguf_version: version,
    name: name ?? null,
    architecture: architecture ?? null,
    hyperparameters: Object.fromEntries(hyperparameterRows(hyperparameters).map(([key, value]) => [key, value ?? null])),
    vocabulary: vocabulary === undefined ? null : { ...vocabulary, model: vocabulary.model ?? null, pre: vocabulary.pre ?? null },
    bytes_by_type: types,
    memory,
    tensors,
    warnings,
  };
}
