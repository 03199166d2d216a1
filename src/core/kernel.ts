/** A WGSL kernel as data: identified by its structure before any text exists, so that caches need no shader source to find it. */

export type BindingKind = 'read' | 'read_write' | 'uniform';

export type KernelFeature = 'shader-f16' | 'subgroups' | 'chromium-experimental-subgroup-matrix';

export type Grid = readonly [x: number, y: number, z: number];

/** A kernel as data: its WGSL text, made when it is asked for, and what a pipeline and a dispatch of it need. */
export interface GpuKernel {
  /** Family and every structural parameter (types, sizes, tile shape): equal keys mean equal WGSL. */
  readonly key: string;
  /** The family's public name, "matvec" for instance. */
  readonly family: string;
  /** One entry per binding of group 0, in order; storage buffers unless 'uniform'. */
  readonly bindings: readonly BindingKind[];
  /** Bytes that each binding must hold at least, where known: WebGPU then checks a bind group once, when it is made, and not at every dispatch. */
  readonly minBindingSizes?: readonly number[];
  readonly workgroups: Grid;
  readonly workgroupSize: Grid;
  /** Bytes of workgroup memory that the WGSL declares. */
  readonly workgroupBytes: number;
  readonly features: readonly KernelFeature[];
  /** The module's text; its entry point is `main`. */
  wgsl(): string;
}
