import type { Command } from 'commander';
import type { GpuCapabilities } from '../core/capabilities.js';
import { CentellaError } from '../core/errors.js';
import { type AdapterList, listAdapters } from '../gpu/adapter.js';
import { detectRuntime } from '../platform/runtime.js';
import { packageVersion, platformName } from '../platform/terminal.js';
import { openBackend } from '../runtime/select.js';
import type { TuningReport } from '../runtime/tuning-file.js';
import { WebGpuBackend } from '../runtime/webgpu-backend.js';
import { checkDevice } from './doctor-check.js';
import { kernelChoices } from './doctor-kernels.js';
import { checksJson, checksText, type DoctorReport, reportJson, reportText } from './doctor-report.js';
import { plural } from './format.js';
import { progressBar } from './load.js';
import { addDeviceOptions, backendOptions, type DeviceOptions } from './options.js';
import { exitStatus, type Session } from './session.js';

interface DoctorOptions extends DeviceOptions {
  readonly check?: true;
  readonly filter?: string;
  readonly json?: true;
}

const examples = `Examples:
  centella doctor                                   adapters, the one that is taken, its limits and kernels
  centella doctor --check                           every kernel against its reference, on this device
  centella doctor --check --device webgpu --filter linear
`;

export function addDoctor(program: Command, session: Session): void {
  const command = program
    .command('doctor')
    .summary('show what this machine has, and check its results')
    .description(
      'Shows adapters, features, limits and the kernels that are chosen, and why; --check compares every kernel with its reference and says which device to trust.',
    )
    .option('--check', "run every kernel's cases, with WebGPU's own checks off and on, and on the CPU")
    .option('--filter <text>', 'with --check: only cases with this text in their names')
    .option('--json', 'one JSON object')
    .addHelpText('before', examples);
  addDeviceOptions(command, { checked: false }).action((options: DoctorOptions) => (options.check ? check(session, options) : show(session, options)));
}

async function show(session: Session, options: DoctorOptions): Promise<void> {
  const report = await examine(options);
  if (report.chosen === undefined) session.status = exitStatus.failed;
  await session.terminal.write(options.json ? `${JSON.stringify(reportJson(report))}\n` : reportText(report));
}

async function check(session: Session, options: DoctorOptions): Promise<void> {
  const bar = progressBar(session);
  const results = await checkDevice({
    backend: backendOptions(options),
    filter: options.filter ?? '',
    signal: session.signal,
    onProgress: (mode, done, total) => bar.show(done / total, `${mode}: ${plural(total - done, 'case')} to go`),
  }).finally(() => bar.clear());
  if (results.some(({ failures }) => failures.length > 0)) session.status = exitStatus.failed;
  await session.terminal.write(options.json ? `${JSON.stringify(checksJson(results))}\n` : checksText(results));
}

async function examine(options: DoctorOptions): Promise<DoctorReport> {
  const { name, version } = detectRuntime();
  const adapters = await adaptersHere();
  const { chosen, problem, capabilities, tuning } = await choose(options);
  // Where the CPU is chosen, what `--device webgpu` would lead to is still worth seeing.
  const first = adapters.adapters[0];
  const described = capabilities ?? first?.capabilities;
  return {
    version: packageVersion(),
    runtime: `${name} ${version ?? ''}, ${platformName()}`,
    adapters,
    chosen,
    problem,
    device: described && { name: chosen?.kind === 'webgpu' ? chosen.name : (first?.name ?? ''), capabilities: described, kernels: kernelChoices(described) },
    tuning,
    cpu: { simd: WebAssembly.validate(simdModule), threads: 1 },
  };
}

async function adaptersHere(): Promise<AdapterList> {
  try {
    return await listAdapters();
  } catch (error) {
    if (error instanceof CentellaError) return { adapters: [], notes: [error.message] };
    throw error;
  }
}

/** What a command with these options would run on. */
async function choose(
  options: DoctorOptions,
): Promise<Pick<DoctorReport, 'chosen' | 'problem'> & { readonly capabilities?: GpuCapabilities; readonly tuning?: TuningReport }> {
  try {
    const backend = await openBackend(backendOptions(options));
    const { kind, name, reason, checks } = backend;
    const found = backend instanceof WebGpuBackend ? { capabilities: backend.gpu.capabilities, tuning: backend.tuning } : {};
    backend.dispose();
    return { chosen: { kind, name, reason, checks }, problem: undefined, ...found };
  } catch (error) {
    if (error instanceof CentellaError && error.code !== 'E_ARGUMENT') return { chosen: undefined, problem: `${error.message} [${error.code}]` };
    throw error;
  }
}

/** A function that splats a byte over a vector and drops it: an engine without SIMD refuses it. */
const simdModule = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // "\0asm", version 1
  ...[0x01, 0x04, 0x01, 0x60, 0x00, 0x00], // types: one function without parameters and results
  ...[0x03, 0x02, 0x01, 0x00], // functions: one of that type
  ...[0x0a, 0x09, 0x01, 0x07, 0x00, 0x41, 0x00, 0xfd, 0x0f, 0x1a, 0x0b], // code: i32.const 0, i8x16.splat, drop, end
);
