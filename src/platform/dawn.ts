/**
 * Finds WebGPU: `navigator.gpu` in browsers and Deno (and Bun, where it has one), the `webgpu` package (Dawn) in Node.
 *
 * Dawn in Node has rules that this module keeps:
 * - the object that `create()` returns must outlive everything made from it: collecting it ends the process (webgpu 0.6.2), hence the tables below;
 * - toggles belong to an instance, so there is one instance per set of toggles and adapter choice, and one for each of several identical GPUs;
 * - a thread that holds a device must not be ended by `worker.terminate()` while work is in flight: end the process instead;
 * - after GPU work the event loop may stay alive for about three seconds: a command-line program ends itself with `process.exit()`;
 * - kernels compile on threads of Dawn's own, and a process that ends beneath them may crash: such devices are destroyed first, which waits for those threads.
 */

import { CentellaError, DeviceError } from '../core/errors.js';
import { withPrime } from './device-select.js';
import { detectRuntime } from './runtime.js';

/** `host`: the checks of a browser or of another runtime, which are always on and not ours to choose. */
export type DawnChecks = 'checked' | 'unchecked' | 'host';

export interface GpuSourceOptions {
  /** Keep Dawn's robustness, workgroup zeroing and lazy clearing on. Default false; API validation is on either way. */
  readonly checked?: boolean;
  /** Dawn's backend name ("vulkan", "metal", "d3d12", "opengles"); Node only. */
  readonly backend?: string;
  /** A part of Dawn's adapter name; Node only. */
  readonly adapterName?: string;
  /** Which of several GPUs of one name: the instance is made with this one first. Node on Linux, with Mesa's device-select layer. */
  readonly pciAddress?: string;
}

export interface GpuSource {
  readonly gpu: GPU;
  readonly provider: 'dawn' | 'navigator';
  readonly checks: DawnChecks;
}

/** An adapter as Dawn names it. */
export interface DawnAdapterName {
  readonly backend: string;
  readonly name: string;
}

interface DawnModule {
  create(options: readonly string[]): GPU;
}

/** On in every instance: f16 on NVIDIA (its driver passes the tests that Dawn doubts), subgroup matrices. */
const enabledToggles = ['allow_unsafe_apis', 'vulkan_enable_f16_on_nvidia'];

/** The checks that native engines run without: they cost 8% on f32 and up to 30% on f16 matrix products. */
const uncheckedToggles = ['disable_robustness', 'disable_workgroup_init'];

/** Options for Dawn's `create()`. Timestamps are never quantised: profiles need nanoseconds, and no page is watching. */
export function dawnFlags(options: GpuSourceOptions): string[] {
  const checked = options.checked === true;
  const disabled = checked ? ['timestamp_quantization'] : ['timestamp_quantization', 'lazy_clear_resource_on_first_use'];
  return [
    `enable-dawn-features=${[...enabledToggles, ...(checked ? [] : uncheckedToggles)].join(',')}`,
    `disable-dawn-features=${disabled.join(',')}`,
    ...(options.backend === undefined ? [] : [`backend=${options.backend}`]),
    ...(options.adapterName === undefined ? [] : [`adapter=${options.adapterName}`]),
  ];
}

// Strong references for the life of the process: see the head of this file.
const instances = new Map<string, Promise<GPU>>();
const kept: object[] = [];

/** Holds a Dawn object (an adapter, a device) strongly until the process ends. */
export function keepAlive<T extends object>(object: T): T {
  kept.push(object);
  return object;
}

/** Devices that are compiling, and how many kernels. */
const compiling = new Map<Pick<GPUDevice, 'destroy'>, number>();
let watchesExit = false;

/** Waits for a compilation on a device; should the process be ended meanwhile, then after it. Nothing else in browsers. */
export async function throughExit<T>(device: Pick<GPUDevice, 'destroy'>, compilation: Promise<T>): Promise<T> {
  if (detectRuntime().name !== 'node') return compilation;
  if (!watchesExit) process.on('exit', endCompilations);
  watchesExit = true;
  compiling.set(device, (compiling.get(device) ?? 0) + 1);
  try {
    return await compilation;
  } finally {
    const left = (compiling.get(device) ?? 1) - 1;
    if (left > 0) compiling.set(device, left);
    else compiling.delete(device);
  }
}

/** Destroys the devices that are compiling: for the end of the process. @internal */
export function endCompilations(): void {
  for (const device of compiling.keys()) device.destroy();
  compiling.clear();
}

/**
 * WebGPU's entry point in this runtime.
 * @throws CentellaError E_NO_WEBGPU where there is none; the message says what to install or to switch on.
 */
export async function openGpu(options: GpuSourceOptions = {}): Promise<GpuSource> {
  const runtime = detectRuntime();
  const native = runtime.name === 'node' ? undefined : navigatorGpu();
  if (native !== undefined) return { gpu: native, provider: 'navigator', checks: 'host' };
  if (runtime.name !== 'node' && runtime.name !== 'bun') throw new CentellaError('E_NO_WEBGPU', absentMessage(runtime.name));
  const flags = dawnFlags(options);
  const key = [...flags, options.pciAddress ?? ''].join(' ');
  const starting = instances.get(key) ?? startInstance(flags, options.pciAddress);
  instances.set(key, starting);
  const gpu = await starting.catch((error: unknown) => {
    instances.delete(key);
    throw error;
  });
  return { gpu, provider: 'dawn', checks: options.checked === true ? 'checked' : 'unchecked' };
}

async function startInstance(flags: readonly string[], pciAddress: string | undefined): Promise<GPU> {
  const { create } = await loadDawn();
  if (pciAddress === undefined) return create(flags);
  return withPrime(pciAddress, async () => {
    const gpu = create(flags);
    // Dawn starts Vulkan with the first request, and keeps the order of the GPUs that it then finds.
    const adapter = await gpu.requestAdapter();
    if (adapter !== null) keepAlive(adapter);
    return gpu;
  });
}

function navigatorGpu(): GPU | undefined {
  return (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu ?? undefined;
}

function absentMessage(runtime: string): string {
  if (runtime === 'deno') return 'WebGPU is not available: navigator.gpu is missing in this Deno. Start it with --unstable-webgpu, or use the CPU backend';
  return 'WebGPU is not available: navigator.gpu is missing. Use a browser with WebGPU and a secure page (https or localhost), or the CPU backend';
}

async function loadDawn(): Promise<DawnModule> {
  // Not a literal: bundlers for browsers must not look for the package.
  const name = 'webgpu';
  try {
    return (await import(/* @vite-ignore */ name)) as DawnModule;
  } catch (cause) {
    const absent = (cause as { code?: string }).code === 'ERR_MODULE_NOT_FOUND';
    const message = absent
      ? 'WebGPU in Node needs the package "webgpu" (Dawn), which is not installed: npm install webgpu'
      : `the package "webgpu" (Dawn) is installed but cannot be loaded on this machine: ${cause instanceof Error ? cause.message : String(cause)}`;
    throw new CentellaError('E_NO_WEBGPU', message, { cause });
  }
}

/** The backend that Dawn takes an adapter of where none is named. */
export function dawnBackend(platform: string = process.platform): string {
  return platform === 'win32' ? 'd3d12' : platform === 'darwin' ? 'metal' : 'vulkan';
}

/** The instance that lists adapters asks for one with this name, which no adapter has: the refusal names those that exist. */
const noSuchAdapter = 'centella: list';

/**
 * The adapters that Dawn sees, in its order. Node only: WebGPU itself has no enumeration, and Dawn offers it in an error message alone.
 * @throws DeviceError where that message has changed its form.
 */
export async function dawnAdapterNames(): Promise<readonly DawnAdapterName[]> {
  const { gpu } = await openGpu({ adapterName: noSuchAdapter });
  try {
    const adapter = await gpu.requestAdapter();
    if (adapter === null) return [];
    keepAlive(adapter);
  } catch (error) {
    return parseAdapterList(error instanceof Error ? error.message : String(error));
  }
  throw new DeviceError(
    'E_DEVICE',
    `Dawn gave an adapter for the name "${noSuchAdapter}", so adapters cannot be listed with this version of the webgpu package`,
  );
}

/** Reads the adapters out of Dawn's refusal: lines like " * backend: 'vulkan', name: 'NVIDIA H200'". */
export function parseAdapterList(message: string): readonly DawnAdapterName[] {
  return [...message.matchAll(/^ \* backend: '([^']*)', name: '(.*)'$/gm)].map(([, backend = '', name = '']) => ({ backend, name }));
}
