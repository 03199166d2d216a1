import type { WasmProgram } from './wasm/assembler.js';

/** Bytes of linear memory that one argument of a step covers. */
export interface CpuArg {
  readonly offset: number;
  readonly byteLength: number;
}

/** A compiled program: byte addresses and counts in, results in memory. Addresses past 2 GiB wrap to negative i32 values, which WebAssembly reads as unsigned. */
export type WasmFunction = (...values: number[]) => void;

/** What a kernel binds itself to: its arguments as addresses and as views, which are valid until the memory grows; the executor then binds anew. */
export interface CpuContext {
  /** Byte address of argument `index`. */
  address(index: number): number;
  f32(index: number): Float32Array;
  u32(index: number): Uint32Array;
  u16(index: number): Uint16Array;
  u8(index: number): Uint8Array;
  /** The compiled form of one of the kernel's programs. */
  compiled(program: WasmProgram): WasmFunction;
}

/** A kernel of the CPU backend: one call in a flat list. */
export interface CpuKernel {
  /** Family and every structural parameter: equal keys mean equal behaviour. */
  readonly key: string;
  readonly family: string;
  /** The WebAssembly functions that it calls; none for kernels in plain TypeScript. */
  readonly programs: readonly WasmProgram[];
  /** The call itself, with its arguments in the order of the step's; it allocates nothing. */
  bind(context: CpuContext): () => void;
}
