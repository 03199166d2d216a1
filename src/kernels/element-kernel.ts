import type { BindingKind, GpuKernel } from '../core/kernel.js';
import { declareBindings, defineKernel, elementThreads, foldGrid, type KernelSpec, mainHead } from './template.js';

/** A kernel in which every thread makes one thing by itself: an element, a vector, a pair. */
export interface ElementKernelSpec extends Pick<KernelSpec, 'family' | 'params' | 'features'> {
  /** Things that are made. */
  readonly count: number;
  readonly bindings: readonly (readonly [name: string, element: string, kind: BindingKind])[];
  /** Module text before `main`. */
  functions?(): string;
  /** Statements of `main`, which make the thing `index` < `count`. */
  body(): string;
}

export function elementKernel({ count, bindings, functions, body, ...rest }: ElementKernelSpec): GpuKernel {
  const groups = Math.max(1, Math.ceil(count / elementThreads));
  return defineKernel({
    ...rest,
    bindings: bindings.map(([, , kind]) => kind),
    workgroups: foldGrid(groups),
    workgroupSize: elementThreads,
    wgsl: () => `${declareBindings(bindings)}${functions?.() ?? ''}${mainHead(groups, elementThreads)}  let index = group * ${elementThreads}u + local;
  if (index >= ${count}u) { return; }
${body()}}
`,
  });
}
