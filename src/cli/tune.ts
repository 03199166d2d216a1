import type { Command } from 'commander';
import { ArgumentError, throwIfAborted, UnsupportedError } from '../core/errors.js';
import { formatShape, productKey } from '../core/tuning.js';
import { defaultContext, sessionDefaults } from '../engine/load.js';
import { openGguf } from '../formats/gguf/index.js';
import type { ActivationChoice } from '../kernels/decode/select.js';
import { gpuTarget } from '../kernels/target.js';
import { decoderRuns } from '../model/decoder-runs.js';
import { describeModel } from '../model/describe.js';
import { openBackend } from '../runtime/select.js';
import { decodeProducts, type TuneResult, tuneProduct, tuningOf } from '../runtime/tune.js';
import { writeTuning } from '../runtime/tuning-file.js';
import { WebGpuBackend } from '../runtime/webgpu-backend.js';
import { formatTable, plural } from './format.js';
import { progressBar } from './load.js';
import { addDeviceOptions, backendOptions, type DeviceOptions, wholeNumber } from './options.js';
import { type Session, warn } from './session.js';

interface TuneCommandOptions extends DeviceOptions {
  readonly dryRun?: true;
  readonly candidates?: number;
  readonly all?: true;
}

const examples = `Examples:
  centella tune model.gguf                          measure, and keep the best shapes for this adapter
  centella tune model.gguf --dry-run                measure and show only
  centella tune model.gguf --adapter 1
`;

const help = `
Measured are the products of a decode step, which take most of a token's time. The file is the adapter's own (a new driver gets a new one), in the folder tuning of
XDG_CACHE_HOME/centella or the system's cache folder; models that are loaded later read it. \`centella doctor\` shows what it changes; removing it brings the shipped shapes back.`;

export function addTune(program: Command, session: Session): void {
  const command = program
    .command('tune')
    .summary("measure this adapter's best kernel shapes for a model")
    .description(
      "Measures kernel shapes for a model's decode step on this adapter, checks them against each other, and keeps the best in a file. No weights are read.",
    )
    .argument('<model>', 'a GGUF file, its URL, or the first file of a split model')
    .option('--dry-run', 'write no file')
    .option('--candidates <n>', 'most shapes to try for each product (default: all, some tens)', wholeNumber(1))
    .option('--all', '8-bit products that this device or model would not take by itself, too')
    .addHelpText('before', examples)
    .addHelpText('after', help);
  addDeviceOptions(command, { checked: false }).action((source: string, options: TuneCommandOptions) => tune(session, source, options));
}

async function tune(session: Session, source: string, options: TuneCommandOptions): Promise<void> {
  if (options.device === 'cpu') throw new ArgumentError('device', 'the CPU backend has no shapes to tune: give --device webgpu, or none');
  const backend = await openBackend({ ...backendOptions(options), tuning: 'none' });
  try {
    if (!(backend instanceof WebGpuBackend)) throw new UnsupportedError(`only WebGPU adapters are tuned: ${backend.reason}`);
    await tuneOn(session, source, options, backend);
  } finally {
    backend.dispose();
  }
}

async function tuneOn(session: Session, source: string, options: TuneCommandOptions, backend: WebGpuBackend): Promise<void> {
  const { gpu } = backend;
  const { capabilities } = gpu;
  const products = await productsOf(session, source, backend, options.all ? 'int8' : 'auto');
  session.terminal.report(`adapter  ${gpu.adapterInfo.name}\n`);
  const bar = progressBar(session);
  const results: TuneResult[] = [];
  const { candidates } = options;
  try {
    for (const problem of products) {
      bar.show(results.length / products.length, plural(products.length - results.length, 'product'));
      results.push(await tuneProduct(gpu, problem, { signal: session.signal, ...(candidates === undefined ? {} : { candidates }) }));
    }
  } finally {
    bar.clear();
  }
  const wrong = results.reduce((sum, result) => sum + result.wrong, 0);
  if (wrong > 0)
    warn(session, `${plural(wrong, 'shape')} gave other results than the shipped one and were left out: \`centella doctor --check\` tests this device`);
  await session.terminal.write(tableOf(results, capabilities.subgroupMinSize));
  throwIfAborted(session.signal, 'tuning');
  if (options.dryRun) return;
  const tuning = tuningOf(
    capabilities,
    results.map(({ product }) => product),
  );
  session.terminal.report(`written  ${await writeTuning(tuning, capabilities)}\n`);
}

/** The products of the model's decode step. @throws UnsupportedError where it has none. */
async function productsOf(session: Session, source: string, backend: WebGpuBackend, activations: ActivationChoice) {
  const { capabilities } = backend.gpu;
  const file = await openGguf(source, { signal: session.signal });
  try {
    const { config, weights } = describeModel(file);
    const contextLength = Math.min(config.trainedContext, defaultContext);
    const defaults = sessionDefaults(backend, config, contextLength);
    const { refuses } = gpuTarget(capabilities, { activations });
    const [step] = decoderRuns('webgpu', config, weights, { contextLength, ...defaults, prefillChunk: 1 }, refuses);
    const products = step === undefined ? [] : decodeProducts(step.graph, capabilities, activations);
    if (products.length > 0) return products;
    const reasons = [...new Set(step?.report.filter(({ applied }) => !applied).map(({ reason }) => reason))];
    const why = reasons.length === 0 ? '' : ` (${reasons.join('; ')})`;
    throw new UnsupportedError(
      `the decode step of this model has no products with 8-bit activations here, so there is nothing to tune${why}${activations === 'int8' ? '' : '; --all measures what could run'}`,
    );
  } finally {
    await file.close();
  }
}

function tableOf(results: readonly TuneResult[], subgroupSize: number): string {
  const rows = results.map(({ product, shippedMicroseconds, measured }) => {
    const gain = product.microseconds > 0 ? (shippedMicroseconds / product.microseconds - 1) * 100 : 0;
    const shape = formatShape(product.shape, subgroupSize);
    return [productKey(product), shippedMicroseconds.toFixed(2), product.microseconds.toFixed(2), `${gain.toFixed(1)}%`, String(measured), shape];
  });
  return formatTable([['product', 'shipped us', 'best us', 'gain', 'tried', 'best shape'], ...rows]);
}
