/** Runs steps on the CPU: programs compiled into one WebAssembly module per preparation, calls replayed from a flat list. */

import { ArgumentError, DeviceError, DisposedError, PlanError } from '../core/errors.js';
import type { MemoryClass } from '../core/memory.js';
import type { CpuArg, CpuContext, CpuKernel, WasmFunction } from './kernel.js';
import { type CpuAllocation, CpuMemory, type CpuMemoryLedger } from './memory.js';
import { assembleModule, type WasmProgram } from './wasm/assembler.js';

export interface CpuDeviceOptions {
  /** The most bytes that may live at once; default 4 GiB, which is what 32-bit addresses reach. */
  readonly budgetBytes?: number;
}

/** A kernel with the bytes that its arguments cover. */
export interface CpuStep {
  readonly kernel: CpuKernel;
  readonly args: readonly CpuArg[];
}

/**
 * One linear memory and the programs compiled for it. In a browser, a page with a Content-Security-Policy must allow `'wasm-unsafe-eval'` in `script-src`: the kernels
 * are generated.
 */
export class CpuDevice {
  readonly #memory: CpuMemory;
  readonly #compiled = new Map<string, WasmFunction>();
  #disposed = false;

  constructor(options: CpuDeviceOptions = {}) {
    this.#memory = new CpuMemory(options.budgetBytes);
  }

  /** Zeroed bytes. @throws OutOfMemoryError */
  allocate(label: string, memoryClass: MemoryClass, bytes: number): CpuAllocation {
    this.#check();
    return this.#memory.allocate(label, memoryClass, bytes);
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#range(offset, bytes.byteLength).set(bytes);
  }

  /** A copy of [offset, offset + length). */
  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    return this.#range(offset, length).slice();
  }

  /**
   * Compiles what the steps need and is not compiled yet, and binds their arguments.
   * @throws DeviceError where the engine refuses the module (a Content-Security-Policy without `'wasm-unsafe-eval'`, an engine without SIMD).
   */
  async prepare(steps: readonly CpuStep[]): Promise<CpuExecutable> {
    this.#check();
    await this.#compile(steps.flatMap((step) => step.kernel.programs));
    this.#check();
    return new CpuExecutable(this, this.#memory, steps, this.#compiled);
  }

  ledger(): CpuMemoryLedger {
    return this.#memory.ledger();
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#compiled.clear();
    this.#memory.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('the CPU device');
  }

  #range(offset: number, length: number): Uint8Array<ArrayBuffer> {
    this.#check();
    const { buffer } = this.#memory.wasm;
    if (!(offset >= 0 && length >= 0 && offset + length <= buffer.byteLength)) {
      throw new ArgumentError('offset', `bytes ${offset} to ${offset + length} are not inside the device's ${buffer.byteLength} bytes`);
    }
    return new Uint8Array(buffer, offset, length);
  }

  async #compile(programs: readonly WasmProgram[]): Promise<void> {
    const missing = [...new Map(programs.filter(({ key }) => !this.#compiled.has(key)).map((program) => [program.key, program])).values()];
    if (missing.length === 0) return;
    const instance = await instantiate(missing, this.#memory.wasm);
    for (const [index, { key }] of missing.entries()) {
      const exported = instance.exports[String(index)];
      if (typeof exported !== 'function') throw new PlanError(`program ${key} is not among its module's exports`);
      this.#compiled.set(key, exported as WasmFunction);
    }
  }
}

async function instantiate(programs: readonly WasmProgram[], memory: WebAssembly.Memory): Promise<WebAssembly.Instance> {
  const bytes = assembleModule(programs);
  try {
    const module = await WebAssembly.compile(bytes);
    return await WebAssembly.instantiate(module, { env: { memory } });
  } catch (cause) {
    throw new DeviceError(
      'E_DEVICE',
      `the engine did not compile ${programs.length} CPU kernels (${String(cause)}): it needs WebAssembly SIMD, and 'wasm-unsafe-eval' under a Content-Security-Policy`,
      { cause },
    );
  }
}

/** Steps bound to their bytes, ready to be replayed. */
export class CpuExecutable {
  readonly #device: CpuDevice;
  readonly #memory: CpuMemory;
  readonly #steps: readonly CpuStep[];
  readonly #compiled: ReadonlyMap<string, WasmFunction>;
  #calls: readonly (() => void)[] = [];
  #bound: ArrayBuffer | undefined;

  constructor(device: CpuDevice, memory: CpuMemory, steps: readonly CpuStep[], compiled: ReadonlyMap<string, WasmFunction>) {
    this.#device = device;
    this.#memory = memory;
    this.#steps = steps;
    this.#compiled = compiled;
    this.#bind();
  }

  /** Every step once, in order. Allocates nothing, unless the memory has grown since: then the arguments are bound anew. */
  run(): void {
    if (this.#device.disposed) throw new DisposedError('the CPU device');
    if (this.#memory.wasm.buffer !== this.#bound) this.#bind();
    const calls = this.#calls;
    for (let i = 0; i < calls.length; i++) calls[i]?.();
  }

  /** As `run`, with the milliseconds of every step, in order. */
  profile(): number[] {
    if (this.#device.disposed) throw new DisposedError('the CPU device');
    if (this.#memory.wasm.buffer !== this.#bound) this.#bind();
    return this.#calls.map((call) => {
      const start = performance.now();
      call();
      return performance.now() - start;
    });
  }

  #bind(): void {
    const { buffer } = this.#memory.wasm;
    this.#calls = this.#steps.map((step) => step.kernel.bind(new BoundArguments(step, buffer, this.#compiled)));
    this.#bound = buffer;
  }
}

class BoundArguments implements CpuContext {
  readonly #step: CpuStep;
  readonly #buffer: ArrayBuffer;
  readonly #compiled: ReadonlyMap<string, WasmFunction>;

  constructor(step: CpuStep, buffer: ArrayBuffer, compiled: ReadonlyMap<string, WasmFunction>) {
    this.#step = step;
    this.#buffer = buffer;
    this.#compiled = compiled;
  }

  address(index: number): number {
    return this.#arg(index).offset;
  }

  f32(index: number): Float32Array {
    const { offset, byteLength } = this.#arg(index);
    return new Float32Array(this.#buffer, offset, byteLength >>> 2);
  }

  u32(index: number): Uint32Array {
    const { offset, byteLength } = this.#arg(index);
    return new Uint32Array(this.#buffer, offset, byteLength >>> 2);
  }

  u16(index: number): Uint16Array {
    const { offset, byteLength } = this.#arg(index);
    return new Uint16Array(this.#buffer, offset, byteLength >>> 1);
  }

  u8(index: number): Uint8Array {
    const { offset, byteLength } = this.#arg(index);
    return new Uint8Array(this.#buffer, offset, byteLength);
  }

  compiled(program: WasmProgram): WasmFunction {
    const found = this.#compiled.get(program.key);
    if (found === undefined) throw new PlanError(`${this.#step.kernel.key} calls ${program.key}, which it does not list`);
    return found;
  }

  #arg(index: number): CpuArg {
    const arg = this.#step.args[index];
    if (arg === undefined) throw new PlanError(`${this.#step.kernel.key} has ${this.#step.args.length} arguments, and wants number ${index}`);
    return arg;
  }
}
