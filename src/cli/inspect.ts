import type { Command } from 'commander';
import { baseCapabilities } from '../core/capabilities.js';
import { defaultChunk, defaultContext } from '../engine/load.js';
import { type GgufFile, openGguf } from '../formats/gguf/index.js';
import type { CacheType } from '../model/decoder-graph.js';
import type { ModelDescription } from '../model/describe.js';
import type { Hyperparameters } from '../model/hyperparameters.js';
import { bytesByType, inspectHyperparameters, type MemoryNeeded, memoryNeeded, runnable, type TypeUse } from '../model/inspect.js';
import { checkVocabulary, type VocabularySummary } from '../text/index.js';
import { formatBytes, formatCount, formatTable, plural } from './format.js';
import { addCacheOption, wholeNumber } from './options.js';
import { type Session, warn } from './session.js';

interface InspectOptions {
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
  /** Types of the KV cache. */
  readonly kv: { readonly webgpu: CacheType; readonly cpu: CacheType };
  readonly webgpu: MemoryNeeded;
  readonly cpu: MemoryNeeded;
}

const examples = `Examples:
  centella inspect model.gguf                     architecture, tensors, bytes by type, memory needed
  centella inspect model.gguf --context 32768     memory with a context of that length
  centella inspect model.gguf --json              the same as one JSON object
`;

export function addInspect(program: Command, session: Session): void {
  const command = program
    .command('inspect')
    .summary('show what a model file holds and needs')
    .description('Checks a GGUF file (container, vocabulary, hyperparameters) and shows what it holds and how much memory it needs. Weights are not read.')
    .argument('<file>', 'a GGUF file, its URL, or the first file of a split model')
    .option('--context <n>', 'positions of the context (default: what the model was trained for, at most 4096)', wholeNumber(1))
    .option('--json', 'one JSON object; what the file does not say is null')
    .addHelpText('before', examples);
  addCacheOption(command).action((source: string, options: InspectOptions) => inspect(session, source, options));
}

async function inspect(session: Session, source: string, options: InspectOptions): Promise<void> {
  const file = await openGguf(source, { signal: session.signal });
  try {
    for (const message of file.warnings) warn(session, message);
    const found = inspectFile(file, options);
    await session.terminal.write(options.json ? `${JSON.stringify(jsonInspection(found, file.warnings))}\n` : textInspection(found));
  } finally {
    await file.close();
  }
}

function inspectFile(file: GgufFile, options: InspectOptions): Inspection {
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
    memory: 'model' in described ? memoryOf(described.model, options) : described,
  };
}

function memoryOf(model: ModelDescription, { context: wanted, kv }: InspectOptions): Memory {
  const context = wanted ?? Math.min(model.config.trainedContext, defaultContext);
  const options = { contextLength: context, prefillChunk: Math.min(defaultChunk, context) };
  const types = { webgpu: kv ?? 'f16', cpu: kv ?? 'f32' } as const;
  return {
    context,
    kv: types,
    webgpu: memoryNeeded(model, { ...options, cacheType: types.webgpu }, baseCapabilities),
    cpu: memoryNeeded(model, { ...options, cacheType: types.cpu }, 'cpu'),
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
    hyperparameterRows(found.hyperparameters).map(([name, value]) => [name, value === undefined ? 'unknown' : String(value)]),
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

function vocabularyText(vocabulary: VocabularySummary | undefined): string {
  if (vocabulary === undefined) return 'none';
  const { model = 'unknown', pre, vocabSize, merges, special } = vocabulary;
  const ids = Object.entries(special).map(([name, id]) => `${name} ${id}`);
  return [`${model}${pre === undefined ? '' : ` (${pre})`}`, plural(vocabSize, 'token'), plural(merges, 'merge'), ...ids].join(', ');
}

function memoryText(memory: Inspection['memory']): string {
  if ('reason' in memory) return `  unknown: ${memory.reason}\n`;
  const { context, kv, webgpu, cpu } = memory;
  const row = (label: string, part: keyof MemoryNeeded): string[] => [label, formatBytes(webgpu[part]), formatBytes(cpu[part])];
  return formatTable(
    [
      [`at a context of ${context}`, 'WebGPU', 'CPU'],
      row('weights', 'weights'),
      row(`KV cache (${kv.webgpu === kv.cpu ? kv.cpu : `${kv.webgpu}, ${kv.cpu}`})`, 'kv'),
      row('activations', 'arena'),
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
