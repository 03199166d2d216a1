/** What every WGSL kernel shares: the making of `GpuKernel` objects, grids, literals, and text for half floats and reductions. */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { BindingKind, GpuKernel, Grid, KernelFeature } from '../core/kernel.js';
import type { Access, InPlace, Step, StepArg } from '../core/step.js';
import type { ComputeOp } from '../ops/params.js';
import type { LoweringNode, TensorRef } from '../ops/target.js';

/** A structural parameter of a kernel: everything that its text depends on. */
export type KernelParam = number | string | boolean | readonly KernelParam[] | { readonly [name: string]: KernelParam };

export interface KernelSpec {
  readonly family: string;
  /** Equal parameters mean equal text: leave nothing out that `wgsl` reads. */
  readonly params: { readonly [name: string]: KernelParam };
  readonly bindings: readonly BindingKind[];
  readonly workgroups: Grid;
  /** Threads of a workgroup; a number stands for one axis. */
  readonly workgroupSize: number | Grid;
  /** Bytes of workgroup memory; 0 where left out. */
  readonly workgroupBytes?: number;
  readonly features?: readonly KernelFeature[];
  /** The module's text without `enable` lines (they follow from `features`); its entry point is `main`. */
  wgsl(): string;
}

/** A kernel whose key is its family and its parameters in canonical form. */
export function defineKernel(spec: KernelSpec): GpuKernel {
  const features = spec.features ?? [];
  const { workgroups } = spec;
  const size: Grid = typeof spec.workgroupSize === 'number' ? [spec.workgroupSize, 1, 1] : spec.workgroupSize;
  return {
    key: `${spec.family} ${canonical({ ...spec.params, workgroups, size, features })}`,
    family: spec.family,
    bindings: spec.bindings,
    workgroups,
    workgroupSize: size,
    workgroupBytes: spec.workgroupBytes ?? 0,
    features,
    wgsl: () => `${features.map((feature) => `enable ${enableName[feature]};\n`).join('')}${spec.wgsl()}`,
  };
}

const enableName: { readonly [F in KernelFeature]: string } = {
  'shader-f16': 'f16',
  subgroups: 'subgroups',
  'chromium-experimental-subgroup-matrix': 'chromium_experimental_subgroup_matrix',
};

/** JSON with sorted names; numbers that JSON lacks are written out. */
export function canonical(value: KernelParam): string {
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value);
  if (typeof value !== 'object') return JSON.stringify(value);
  if (isList(value)) return `[${value.map(canonical).join(',')}]`;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([name, entry]) => `${name}:${canonical(entry)}`).join(',')}}`;
}

function isList(value: readonly KernelParam[] | { readonly [name: string]: KernelParam }): value is readonly KernelParam[] {
  return Array.isArray(value);
}

/** An argument that is not a shard of a weight. */
export function arg(ref: TensorRef, access: Access): StepArg {
  return { value: ref.id, shard: 0, access };
}

/** The steps of a node that takes one dispatch. */
export function oneStep(node: LoweringNode<ComputeOp>, kernel: GpuKernel, args: readonly StepArg[], inPlace?: InPlace<GpuKernel>): readonly Step<GpuKernel>[] {
  return [{ label: node.label, node: node.id, kernel, args, ...(inPlace === undefined ? {} : { inPlace }) }];
}

/** `@group(0)` declarations in order; each entry is [name, element type, kind]. */
export function declareBindings(bindings: readonly (readonly [name: string, element: string, kind: BindingKind])[]): string {
  return bindings
    .map(([name, element, kind], index) => {
      const space = kind === 'uniform' ? 'uniform' : `storage, ${kind}`;
      return `@group(0) @binding(${index}) var<${space}> ${name}: ${kind === 'uniform' ? element : `array<${element}>`};\n`;
    })
    .join('');
}

/** WebGPU's guaranteed number of workgroups along one axis. */
export const maxGridAxis = 65_535;

/** `count` workgroups folded into two axes, with as few idle ones as possible. */
export function foldGrid(count: number): Grid {
  const rows = Math.max(1, Math.ceil(count / maxGridAxis));
  return [Math.ceil(count / rows), rows, 1];
}

/** Head of a `main` whose workgroups are folded by `foldGrid(count)`: declares the uniform `group` < count and the thread's index `local`. */
export function mainHead(count: number, threads: number, builtins = ''): string {
  const [width, rows] = foldGrid(count);
  const index = rows === 1 ? 'workgroup.x' : `workgroup.y * ${width}u + workgroup.x`;
  return `@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32${builtins === '' ? '' : `, ${builtins}`}) {
  let group = ${index};
${width * rows > count ? `  if (group >= ${count}u) { return; }\n` : ''}`;
}

/** An f32 literal that reads back as exactly `Math.fround(value)`; infinities and NaN come from `nonFinite`, which the module must then hold. */
export function f32Literal(value: number): string {
  const rounded = Math.fround(value);
  if (Number.isNaN(rounded)) return 'nonFinite(0x7fc00000u)';
  if (!Number.isFinite(rounded)) return `nonFinite(${rounded > 0 ? '0x7f800000u' : '0xff800000u'})`;
  const text = `${Math.abs(rounded)}f`;
  return rounded < 0 || Object.is(rounded, -0) ? `(-${text})` : text;
}

/** WGSL refuses constant expressions that are not finite: these bits pass through a variable. */
export const nonFiniteFunction = `fn nonFinite(pattern: u32) -> f32 {
  var bits = pattern;
  return bitcast<f32>(bits);
}
`;

/** WGSL lets a device assume that no float is NaN: tests go through the bits. */
export const isNanFunction = `fn isNan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
`;

/**
 * The low 16 bits of `h` as an f16, exactly, subnormals, infinities and NaN included (`unpack2x16float` may flush subnormals). A subnormal is its mantissa times 2^-24,
 * had by subtracting 2^-14 from a normal number with the same mantissa.
 */
export const decodeHalfFunction = `fn decodeHalf(h: u32) -> f32 {
  let magnitude = h & 0x7fffu;
  let sign = (h & 0x8000u) << 16u;
  let small = bitcast<u32>(bitcast<f32>((magnitude << 13u) + 0x38800000u) - 0.00006103515625f);
  let wide = (magnitude << 13u) + select(0x38000000u, 0x70000000u, magnitude >= 0x7c00u);
  return bitcast<f32>(sign | select(wide, small, magnitude < 0x0400u));
}
`;

/** The bits of the f16 nearest to `x`, ties to even, with subnormals, overflow to infinity and NaN as IEEE 754 says (`pack2x16float` leaves rounding and overflow open). */
export const encodeHalfFunction = `fn encodeHalf(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return sign | 0x7e00u; }
  if (magnitude >= 0x477ff000u) { return sign | 0x7c00u; }
  if (magnitude >= 0x38800000u) { return sign | ((magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13u) & 1u)) >> 13u); }
  if (magnitude <= 0x33000000u) { return sign; }
  let shift = 126u - (magnitude >> 23u);
  let mantissa = (magnitude & 0x007fffffu) | 0x00800000u;
  let kept = mantissa >> shift;
  let rest = mantissa & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return sign | (kept + select(0u, 1u, rest > half || (rest == half && (kept & 1u) == 1u)));
}
`;

/** WGSL vectors of f32: the widest of 4, 2 and 1 that divides `size`. */
export function vectorWidth(size: number): 1 | 2 | 4 {
  return size % 4 === 0 ? 4 : size % 2 === 0 ? 2 : 1;
}

export function vectorType(width: 1 | 2 | 4, scalar = 'f32'): string {
  return width === 1 ? scalar : `vec${width}<${scalar}>`;
}

/** Threads of a one-dimensional workgroup for elementwise work. */
export const elementThreads = 256;

/** Subgroups as a kernel sees them: absent, of one known size, or of a size read at run time within a range. */
export interface SubgroupRange {
  readonly min: number;
  readonly max: number;
}

export function subgroupRange(capabilities: GpuCapabilities): SubgroupRange | undefined {
  const { subgroups, subgroupMinSize: min, subgroupMaxSize: max } = capabilities;
  return subgroups && min > 0 ? { min, max } : undefined;
}

/** Text of a workgroup-wide reduction. */
export interface Reduction {
  /** Module-scope text: the workgroup array and `fn NAME(value: f32, local: u32 ...) -> f32`, whose result every thread gets. */
  readonly declarations: string;
  /** The call on an expression. It holds barriers: uniform control flow only, and another use needs no barrier in between. */
  call(value: string): string;
  /** Builtins that `main` must take. */
  readonly builtins: string;
  readonly bytes: number;
  readonly features: readonly KernelFeature[];
}

/** Sum or maximum of one f32 per thread over a one-dimensional workgroup, in an order fixed by the subgroup size. */
export function workgroupReduction(name: string, operation: 'add' | 'max', threads: number, subgroups: SubgroupRange | undefined): Reduction {
  const combine = (a: string, b: string): string => (operation === 'add' ? `${a} + ${b}` : `max(${a}, ${b})`);
  return subgroups === undefined ? treeReduction(name, combine, threads) : subgroupReduction(name, operation, combine, threads, subgroups);
}

type Combine = (a: string, b: string) => string;

function treeReduction(name: string, combine: Combine, threads: number): Reduction {
  const steps: string[] = [];
  for (let width = threads; width > 1; ) {
    const half = Math.ceil(width / 2);
    steps.push(
      `  if (local < ${width - half}u) { ${name}Parts[local] = ${combine(`${name}Parts[local]`, `${name}Parts[local + ${half}u]`)}; }\n  workgroupBarrier();\n`,
    );
    width = half;
  }
  return {
    declarations: `var<workgroup> ${name}Parts: array<f32, ${threads}>;
fn ${name}(value: f32, local: u32) -> f32 {
  ${name}Parts[local] = value;
  workgroupBarrier();
${steps.join('')}  let result = ${name}Parts[0];
  workgroupBarrier();
  return result;
}
`,
    call: (value) => `${name}(${value}, local)`,
    builtins: '',
    bytes: threads * 4,
    features: [],
  };
}

function subgroupReduction(name: string, operation: 'add' | 'max', combine: Combine, threads: number, { min, max }: SubgroupRange): Reduction {
  const builtin = operation === 'add' ? 'subgroupAdd' : 'subgroupMax';
  const parts = Math.ceil(threads / min);
  const size = min === max ? `${min}u` : 'lanes';
  const whole = threads <= min;
  return {
    declarations: whole
      ? `fn ${name}(value: f32, local: u32, lane: u32, lanes: u32) -> f32 {
  return ${builtin}(value);
}
`
      : `var<workgroup> ${name}Parts: array<f32, ${parts}>;
fn ${name}(value: f32, local: u32, lane: u32, lanes: u32) -> f32 {
  let own = ${builtin}(value);
  if (lane == 0u) { ${name}Parts[local / ${size}] = own; }
  workgroupBarrier();
  var result = ${name}Parts[0];
  for (var part = 1u; part < ${parts}u; part++) {
    if (part * ${size} < ${threads}u) { result = ${combine('result', `${name}Parts[part]`)}; }
  }
  workgroupBarrier();
  return result;
}
`,
    call: (value) => `${name}(${value}, local, lane, lanes)`,
    builtins: '@builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32',
    bytes: whole ? 0 : parts * 4,
    features: ['subgroups'],
  };
}

/** 0 to `count` - 1. */
export const range = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i);

/** `count` copies of a line of text. */
export function repeat(count: number, line: (index: number) => string, separator = '\n'): string {
  return Array.from({ length: count }, (_, index) => line(index)).join(separator);
}

/** As `repeat`, of lines that end as they should. */
export const lines = (count: number, line: (index: number) => string): string => repeat(count, line, '');
