/**
 * Index of the largest element of each row. Floats become integers of the same order, so that ties, infinities and NaN are decided exactly: NaN is the least of all,
 * and both zeros are equal. A long row is cut in chunks, each giving one (order, index) pair; a second dispatch takes the best pair.
 */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { GpuKernel, KernelFeature } from '../core/kernel.js';
import { need } from '../ops/definition.js';
import type { LoweringRule } from '../ops/target.js';
import { arg, declareBindings, defineKernel, foldGrid, mainHead, oneStep, type SubgroupRange, subgroupRange } from './template.js';

const defaultThreads = 256;
/** Elements of a chunk: eight a thread. */
const chunkSize = 2048;

/** An unsigned integer in the order of the floats: NaN is the least of all, both zeros are equal. */
export const orderFunction = `fn order(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0u; }
  if (magnitude == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits != magnitude);
}
`;

/** Merges a candidate into the thread's (best, at): larger order first, then lower index. */
export const merge = (order: string, index: string): string => `    if (${order} > best || (${order} == best && ${index} < at)) {
      best = ${order};
      at = ${index};
    }
`;

export interface Contest {
  readonly declarations: string;
  /** Text that leaves the workgroup's winner in thread 0's `best` and `at`. */
  readonly body: string;
  readonly builtins: string;
  readonly bytes: number;
  readonly features: readonly KernelFeature[];
}

/** The best (best, at) of a workgroup of that many threads, a power of two. */
export function contest(subgroups: SubgroupRange | undefined, threads = defaultThreads): Contest {
  const slots = subgroups === undefined ? threads : Math.ceil(threads / subgroups.min);
  const declarations = `var<workgroup> bests: array<u32, ${slots}>;\nvar<workgroup> places: array<u32, ${slots}>;\n`;
  const round = (limit: string, step: string): string => `  if (local < ${limit}) {
    let other = bests[local + ${step}];
    let place = places[local + ${step}];
${merge('other', 'place')}    bests[local] = best;
    places[local] = at;
  }
  workgroupBarrier();
`;
  if (subgroups === undefined) {
    const rounds = Array.from({ length: Math.log2(threads) }, (_, i) => threads >> (i + 1))
      .map((half) => round(`${half}u`, `${half}u`))
      .join('');
    return {
      declarations,
      body: `  bests[local] = best;\n  places[local] = at;\n  workgroupBarrier();\n${rounds}`,
      builtins: '',
      bytes: slots * 8,
      features: [],
    };
  }
  const fixed = subgroups.min === subgroups.max;
  const size = fixed ? `${subgroups.min}u` : 'lanes';
  const winner = (top: string, first: string): string => `  let ${top} = subgroupMax(best);
  let ${first} = subgroupMin(select(0xffffffffu, at, best == ${top}));
`;
  // Winners of subgroups: each lane takes one, or several, where all sizes are known; else every thread looks at all of them.
  const lookUp = (i: number): string => `  {
    let slot = min(lane + ${i * subgroups.min}u, ${slots - 1}u);
    let other = bests[slot];
    let place = places[slot];
${merge('other', 'place')}  }
`;
  const last = fixed
    ? `${Array.from({ length: Math.ceil(slots / subgroups.min) }, (_, i) => lookUp(i)).join('')}${winner('most', 'place')}  best = most;\n  at = place;\n`
    : `  best = top;
  at = first;
  for (var part = 1u; part < ${slots}u; part++) {
    if (part * ${size} >= ${threads}u) { break; }
    let other = bests[part];
    let place = places[part];
${merge('other', 'place')}  }
`;
  return {
    declarations,
    body: `${winner('top', 'first')}  if (lane == 0u) {
    bests[local / ${size}] = top;
    places[local / ${size}] = first;
  }
  workgroupBarrier();
${last}`,
    builtins: '@builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32',
    bytes: slots * 8,
    features: ['subgroups'],
  };
}

/** The winners of every chunk of every row: pairs (order, index), or the index alone where a row is one chunk. */
function argmaxKernel(rows: number, width: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const chunks = Math.ceil(width / chunkSize);
  const duel = contest(subgroups);
  return defineKernel({
    family: 'argmax',
    params: { rows, width, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows * chunks),
    workgroupSize: defaultThreads,
    workgroupBytes: duel.bytes,
    features: duel.features,
    wgsl: () => `${declareBindings([
      ['x', 'f32', 'read'],
      ['y', chunks > 1 ? 'vec2<u32>' : 'u32', 'read_write'],
    ])}${orderFunction}${duel.declarations}${mainHead(rows * chunks, defaultThreads, duel.builtins)}  let row = group / ${chunks}u;
  let start = (group % ${chunks}u) * ${chunkSize}u + local;
  var best = 0u;
  var at = 0xffffffffu;
  for (var i = 0u; i < ${chunkSize / defaultThreads}u; i++) {
    let index = start + i * ${defaultThreads}u;
    if (index < ${width}u) {
      let value = order(x[row * ${width}u + index]);
${merge('value', 'index')}    }
  }
${duel.body}  if (local == 0u) { y[group] = ${chunks > 1 ? 'vec2<u32>(best, at)' : 'at'}; }
}
`,
  });
}

/** The best of a row's chunks. */
function argmaxMergeKernel(rows: number, chunks: number, subgroups: SubgroupRange | undefined): GpuKernel {
  const duel = contest(subgroups);
  return defineKernel({
    family: 'argmax_merge',
    params: { rows, chunks, subgroups: subgroups === undefined ? 'none' : { ...subgroups } },
    bindings: ['read', 'read_write'],
    workgroups: foldGrid(rows),
    workgroupSize: defaultThreads,
    workgroupBytes: duel.bytes,
    features: duel.features,
    wgsl: () => `${declareBindings([
      ['pairs', 'vec2<u32>', 'read'],
      ['y', 'u32', 'read_write'],
    ])}${duel.declarations}${mainHead(rows, defaultThreads, duel.builtins)}  var best = 0u;
  var at = 0xffffffffu;
  for (var i = 0u; i < ${Math.ceil(chunks / defaultThreads)}u; i++) {
    let chunk = i * ${defaultThreads}u + local;
    if (chunk < ${chunks}u) {
      let pair = pairs[group * ${chunks}u + chunk];
${merge('pair.x', 'pair.y')}    }
  }
${duel.body}  if (local == 0u) { y[group] = at; }
}
`,
  });
}

export function argmaxRule(capabilities: GpuCapabilities): LoweringRule<'argmax', GpuKernel> {
  const subgroups = subgroupRange(capabilities);
  return (node, context) => {
    const x = need(node.inputs[0]);
    const [rows = 0, width = 0] = x.type.shape;
    const chunks = Math.ceil(width / chunkSize);
    const first = argmaxKernel(rows, width, subgroups);
    if (chunks === 1) return oneStep(node, first, [arg(x, 'read'), arg(node.output, 'write')]);
    const pairs = context.scratch({ dtype: 'u32', shape: [rows, chunks, 2] });
    const second = argmaxMergeKernel(rows, chunks, subgroups);
    return [
      { label: node.label, node: node.id, kernel: first, args: [arg(x, 'read'), arg(pairs, 'write')] },
      { label: `${node.label} merge`, node: node.id, kernel: second, args: [arg(pairs, 'read'), arg(node.output, 'write')] },
    ];
  };
}
