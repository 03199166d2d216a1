/** Shapes of decode products from a table of measurements, where they hold on the device; else the shipped ones. */

import type { GpuCapabilities } from '../../core/capabilities.js';
import { productKey, refuseTuning, type TunedProduct, type TunedShape, type Tuning } from '../../core/tuning.js';
import { activationBlock } from './activations.js';
import { type ProductProblem, type ProductShape, productBytes, productOutputs } from './product.js';
import { halfDecode, leastLanes, type ProductNeeds, selectProduct, workgroupThreads } from './select.js';

/** The most that kernels are unrolled for: above it their registers do not last. */
const most = { rows: 32, ahead: 16 } as const;

export interface ProductChoice {
  readonly shape: ProductShape;
  /** 'tuned' where it was measured on this adapter. */
  readonly source: 'tuned' | 'shipped';
  readonly reason: string;
}

/** A problem as tables name it. */
export function tunedName({ end, best, depth, matrices }: ProductProblem): Pick<TunedProduct, 'end' | 'best' | 'depth' | 'weights'> {
  return { end, best, depth, weights: matrices.map(({ layout: { dtype, rows } }) => ({ dtype, rows })) };
}

export function needsOf({ end, best, depth, weights }: Pick<TunedProduct, 'end' | 'best' | 'depth' | 'weights'>): ProductNeeds {
  const rows = weights.reduce((sum, weight) => sum + weight.rows, 0);
  return { depth, results: end === 'gated' ? rows / 2 : rows, end, best };
}

/** The shape of a product: the table's where it has one that holds here, else the shipped one. */
export function chooseProduct(problem: ProductProblem, capabilities: GpuCapabilities, tuning?: Tuning): ProductChoice {
  const name = tunedName(problem);
  const needs = needsOf(name);
  const shipped = (reason: string): ProductChoice => ({ shape: selectProduct(needs, capabilities), source: 'shipped', reason });
  if (tuning === undefined) return shipped('there is no tuning');
  const foreign = refuseTuning(tuning, capabilities);
  if (foreign !== undefined) return shipped(`the tuning is ignored: ${foreign}`);
  const key = productKey(name);
  const entry = tuning.products.find((product) => productKey(product) === key);
  if (entry === undefined) return shipped(`the tuning has no ${key}`);
  const shape = fitShape(needs, entry.shape, capabilities);
  return typeof shape === 'string' ? shipped(`the tuned shape is ignored: ${shape}`) : { shape, source: 'tuned', reason: 'measured on this adapter' };
}

/** A shape of numbers as one that the kernel may have here, or what forbids it. */
export function fitShape({ depth, results, end, best }: ProductNeeds, tuned: TunedShape, capabilities: GpuCapabilities): ProductShape | string {
  const { subgroups, lanes, rows, together, split, ahead } = tuned;
  const { limits, subgroupMinSize } = capabilities;
  const threads = subgroups * subgroupMinSize;
  if (threads > workgroupThreads(capabilities)) return `${threads} threads are too many for a workgroup`;
  if (rows > most.rows || ahead > most.ahead) return `${rows} rows with ${ahead} loads ahead are more than ${most.rows} with ${most.ahead}`;
  if (subgroups % split !== 0) return `${split} subgroups to a row do not divide ${subgroups}`;
  if (rows % together !== 0) return `${together} rows together do not divide ${rows}`;
  if (subgroupMinSize % lanes !== 0 || lanes < leastLanes)
    return `${lanes} lanes to a row are no part of a subgroup of ${subgroupMinSize} that is ${leastLanes} or more`;
  if (end === 'gated' && (rows % 2 !== 0 || split !== 1)) return `gated products take pairs of rows, each of one subgroup, got ${rows} rows of ${split}`;
  const strips = subgroupMinSize / lanes;
  if (together % strips !== 0 || (end === 'gated' && rows % (2 * strips) !== 0)) return `${rows} rows, ${together} together, are not read ${strips} at once`;
  const made: ProductShape = { subgroupSize: subgroupMinSize, subgroups, lanes, rows, together, split, ahead, staged: true, halves: halfDecode(capabilities) };
  const outputs = productOutputs(end, made);
  if (end !== 'none' && (outputs % activationBlock !== 0 || results % outputs !== 0 || outputs / 4 > threads))
    return `${outputs} results to a workgroup are no whole blocks of ${activationBlock} that divide ${results}`;
  const fits = (shape: ProductShape): boolean => productBytes({ depth, end, best }, shape) <= limits.maxComputeWorkgroupStorageSize;
  if (fits(made)) return made;
  const unstaged = { ...made, staged: false };
  return fits(unstaged) ? unstaged : `${productBytes({ depth, end, best }, unstaged)} bytes of workgroup memory are too many`;
}

/** Which entries of a tuning hold on a device, and what forbids the others. */
export interface TuningCheck {
  readonly used: readonly string[];
  readonly ignored: readonly { readonly product: string; readonly reason: string }[];
}

export function checkEntries(tuning: Tuning, capabilities: GpuCapabilities): TuningCheck {
  const foreign = refuseTuning(tuning, capabilities);
  const checked = tuning.products.map((product) => {
    const shape = foreign ?? fitShape(needsOf(product), product.shape, capabilities);
    return { product: productKey(product), reason: typeof shape === 'string' ? shape : undefined };
  });
  return {
    used: checked.flatMap(({ product, reason }) => (reason === undefined ? [product] : [])),
    ignored: checked.flatMap(({ product, reason }) => (reason === undefined ? [] : [{ product, reason }])),
  };
}

/** Rows of a subgroup, and how many of them side by side. */
const rowChoices = [
  ...[[1, 1] as const, [2, 1] as const, [2, 2] as const, [4, 1] as const, [4, 2] as const, [4, 4] as const],
  ...[[8, 1] as const, [8, 2] as const, [8, 4] as const, [16, 2] as const, [16, 4] as const],
] as const;

/** A whole subgroup to a row, or half of it. */
const lanesOf = (size: number): readonly number[] => (size >= 16 ? [size, size / 2] : [size]);

/** Every legal shape of a grid around the sensible ones, without the shipped one. */
export function productCandidates(problem: ProductProblem, capabilities: GpuCapabilities): readonly ProductShape[] {
  const needs = needsOf(tunedName(problem));
  const shipped = selectProduct(needs, capabilities);
  const groups = (shape: ProductShape): number => Math.ceil(needs.results / productOutputs(problem.end, shape));
  const leastGroups = Math.min(48, groups(shipped));
  const shapes: ProductShape[] = [];
  for (const subgroups of [2, 4, 8, 16, 32])
    for (const [rows, together] of rowChoices)
      for (const split of [1, 2, 4])
        for (const ahead of [1, 2, 3, 4, 6]) {
          for (const lanes of lanesOf(capabilities.subgroupMinSize)) {
            const shape = fitShape(needs, { subgroups, lanes, rows, together, split, ahead }, capabilities);
            if (typeof shape === 'string' || sameShape(shape, shipped) || !isSensible(needs, shape, groups(shape), leastGroups)) continue;
            shapes.push(shape);
          }
        }
  return shapes;
}

/**
 * Blocks of weights in a kernel's text. The tuner times dispatches of one kernel after another; in a step they take turns. One of 64 blocks was the fastest gated product of an 8B model on an H200 by
 * itself, and steps with it took 2.31 ms instead of 1.93: its instructions, as it seems, are no longer in the caches when its turn comes.
 */
const mostUnrolled = 32;

/** Enough loads on their way without running out of registers, and enough workgroups. */
function isSensible({ depth, end, best }: ProductNeeds, shape: ProductShape, groups: number, leastGroups: number): boolean {
  const { subgroupSize, subgroups, lanes, rows, together, split, ahead } = shape;
  const tasks = (Math.ceil(depth / 32 / lanes / split) * rows) / together;
  const outputs = productOutputs(end, shape);
  // Fewer results to a workgroup make the choice, which is not timed here, read more pairs.
  const choosable = !best || (outputs >= 16 && outputs <= 32 && ahead <= 2 && split === 1);
  const loads = (together * lanes * ahead) / subgroupSize;
  const unrolled = (tasks * together * lanes) / subgroupSize;
  // Sums of no block need few rows to a workgroup: parts of columns gain less there.
  const parted = end !== 'none' || split <= 2;
  const busy = loads <= 8 && ahead <= tasks && tasks <= 20 && loads * subgroups >= 4 && groups >= leastGroups && (together < rows || ahead <= 4);
  return choosable && parted && unrolled <= mostUnrolled && busy;
}

function sameShape(a: ProductShape, b: ProductShape): boolean {
  return a.subgroups === b.subgroups && a.lanes === b.lanes && a.rows === b.rows && a.together === b.together && a.split === b.split && a.ahead === b.ahead;
}
