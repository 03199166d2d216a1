/** Shapes of kernels that were measured on one adapter, as plain data: what a file of `centella tune` holds. */

import type { GpuCapabilities } from './capabilities.js';
import { ArgumentError } from './errors.js';

/** Of the format and of what the shapes mean: others are ignored. */
export const tuningVersion = 2;

/** What an adapter is told from another by. Its `description` names the device and its driver where the runtime tells them: a new driver is measured anew. */
export interface AdapterKey {
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  readonly f16: boolean;
  readonly packedDot: boolean;
  readonly maxComputeInvocationsPerWorkgroup: number;
  readonly maxComputeWorkgroupStorageSize: number;
}

/** How a product of one token is laid out on subgroups. All are whole numbers from 1. */
export interface TunedShape {
  /** Subgroups of a workgroup. */
  readonly subgroups: number;
  /**
   * Lanes that share a row: the subgroup, or a part of it (a multiple of 8), which then reads several neighbouring rows at once. Rows of 48 blocks take 2 steps of 32 lanes, the second half empty,
   * and 3 full ones of 16.
   */
  readonly lanes: number;
  /** Rows of weights of a subgroup; of both matrices together where gated. */
  readonly rows: number;
  /** Rows that a subgroup reads side by side: `rows`, or a divisor of it, the rest one after the other with no pause in the loads. */
  readonly together: number;
  /** Subgroups that share the columns of a row. */
  readonly split: number;
  /** Steps whose loads are issued ahead. */
  readonly ahead: number;
}

/** Which product of a decode step, and the shape that measured best for it. */
export interface TunedProduct {
  readonly end: 'none' | 'residual' | 'gated';
  /** Whether it finds the largest result: the head. */
  readonly best: boolean;
  /** Columns. */
  readonly depth: number;
  /** The matrices that one dispatch multiplies with. */
  readonly weights: readonly { readonly dtype: string; readonly rows: number }[];
  readonly shape: TunedShape;
  /** Of one dispatch, as measured: for people. */
  readonly microseconds: number;
}

/** Shapes of kernels that were measured on one adapter; `parseTuning` reads one, `centella tune` writes it. */
export interface Tuning {
  readonly version: number;
  readonly adapter: AdapterKey;
  readonly products: readonly TunedProduct[];
}

export function adapterKey({ vendor, architecture, description, subgroupMinSize, subgroupMaxSize, f16, packedDot, limits }: GpuCapabilities): AdapterKey {
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = limits;
  return {
    ...{ vendor, architecture, description, subgroupMinSize, subgroupMaxSize, f16, packedDot },
    ...{ maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize },
  };
}

/** Why a tuning says nothing about this device, or undefined. */
export function refuseTuning({ version, adapter }: Tuning, capabilities: GpuCapabilities): string | undefined {
  if (version !== tuningVersion) return `it is of version ${version}, and this build reads version ${tuningVersion}`;
  const here = adapterKey(capabilities);
  const differs = (Object.keys(here) as (keyof AdapterKey)[]).find((name) => adapter[name] !== here[name]);
  if (differs === undefined) return undefined;
  return `it was measured on another adapter: ${differs} is ${JSON.stringify(adapter[differs])} there and ${JSON.stringify(here[differs])} here`;
}

/** "16 subgroups x 4 rows (2 together), split 1, ahead 2", with the lanes of a row where these are no whole subgroup of `size`. */
export function formatShape({ subgroups, lanes, rows, together, split, ahead }: TunedShape, size: number): string {
  return `${subgroups} subgroups x ${rows} rows (${together} together${lanes === size ? '' : `, ${lanes} lanes each`}), split ${split}, ahead ${ahead}`;
}

/** "residual q4_k[4096] x 14336": equal for products that may share a shape. */
export function productKey({ end, best, depth, weights }: Pick<TunedProduct, 'end' | 'best' | 'depth' | 'weights'>): string {
  const role = best ? 'best' : end === 'none' ? 'sums' : end;
  return `${role} ${weights.map(({ dtype, rows }) => `${dtype}[${rows}]`).join(' + ')} x ${depth}`;
}

/** The products of both; where both have one, the later's. */
export function mergeTuning(earlier: Tuning, later: Tuning): Tuning {
  const products = new Map([...earlier.products, ...later.products].map((product) => [productKey(product), product]));
  return { ...later, products: [...products.values()] };
}

/**
 * A tuning from its file's text.
 * @throws ArgumentError where it is none.
 */
export function parseTuning(text: string): Tuning {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw notTuning(`is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  return checkTuning(value);
}

/**
 * The value as a tuning; of another version, its products are not looked at.
 * @throws ArgumentError where it is none.
 */
export function checkTuning(value: unknown): Tuning {
  const { version, adapter, products } = recordOf(value, 'a tuning');
  if (typeof version !== 'number') throw notTuning(`has no version: wanted a number, got ${JSON.stringify(version)}`);
  const key = recordOf(adapter, 'adapter') as unknown as AdapterKey;
  if (version !== tuningVersion) return { version, adapter: key, products: [] };
  if (!Array.isArray(products)) throw notTuning(`has no list of products: got ${JSON.stringify(products)}`);
  return { version, adapter: key, products: products.map(checkProduct) };
}

const ends: readonly unknown[] = ['none', 'residual', 'gated'] satisfies TunedProduct['end'][];

function checkProduct(value: unknown, index: number): TunedProduct {
  const at = `products[${index}]`;
  const { end, best, depth, weights, shape, microseconds } = recordOf(value, at);
  if (!ends.includes(end)) throw notTuning(`has ${at}.end ${JSON.stringify(end)}: wanted ${ends.join(', ')}`);
  if (typeof best !== 'boolean') throw notTuning(`has ${at}.best ${JSON.stringify(best)}: wanted true or false`);
  if (!Array.isArray(weights) || weights.length === 0) throw notTuning(`has no ${at}.weights`);
  const matrices = weights.map((weight: unknown, i) => {
    const { dtype, rows } = recordOf(weight, `${at}.weights[${i}]`);
    return { dtype: String(dtype), rows: count(rows, `${at}.weights[${i}].rows`) };
  });
  const numbers = recordOf(shape, `${at}.shape`);
  const part = (name: keyof TunedShape): number => count(numbers[name], `${at}.shape.${name}`);
  return {
    ...{ end: end as TunedProduct['end'], best, depth: count(depth, `${at}.depth`), weights: matrices },
    shape: { subgroups: part('subgroups'), lanes: part('lanes'), rows: part('rows'), together: part('together'), split: part('split'), ahead: part('ahead') },
    microseconds: typeof microseconds === 'number' ? microseconds : 0,
  };
}

function recordOf(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw notTuning(`has ${JSON.stringify(value)} where ${what} should be`);
  return value as Record<string, unknown>;
}

function count(value: unknown, what: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1)
    throw notTuning(`has ${what} ${JSON.stringify(value)}: wanted a whole number from 1`);
  return value;
}

function notTuning(what: string): ArgumentError {
  return new ArgumentError('tuning', `the tuning ${what}. Measure it again with \`centella tune\`.`);
}
