/**
 * What the fused attentions of one token share. Eight neighbours' elements of a head lie in one lane, so that a row of an f16 cache is one 16-byte load a lane; `sub` is the lane within a row.
 */

import { PlanError } from '../../core/errors.js';
import type { RopePairing } from '../../ops/params.js';
import { f32Literal, lines, range } from '../template.js';

export interface AttendProblem {
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a head; RoPE turns all of them. */
  readonly width: number;
  readonly capacity: number;
  /** Positions are below it. */
  readonly window: number;
  /** Rows of the angle table; one is that of the position, and its loads wait for nothing. */
  readonly positions: number;
  readonly pairing: RopePairing;
  /** eps of the norms of Q and K. */
  readonly eps: number | undefined;
  readonly scale: number;
}

/** What a kernel leaves: values, their 8-bit form (activations.ts), or both. */
export interface AttendOutputs {
  readonly plain: boolean;
  readonly packed: boolean;
}

/** Whether lanes of 8 elements fit the heads: a power of two of them, at least two, in a subgroup, and at most 8 rows of them, as many as a lane has sums to share. */
export function fitsLanes(width: number, subgroupSize: number): boolean {
  return [16, 32, 64, 128, 256].includes(width) && width / 8 <= subgroupSize && subgroupSize <= width;
}

export function attendInputs({ eps }: AttendProblem): readonly (readonly [string, string, 'read' | 'read_write'])[] {
  return [
    ['keys', 'vec4<u32>', 'read_write'],
    ['values', 'vec4<u32>', 'read_write'],
    ['raw', 'vec4<f32>', 'read'],
    ['angles', 'vec4<f32>', 'read'],
    ['state', 'u32', 'read'],
    ...(eps === undefined ? [] : [['queryGain', 'vec4<f32>', 'read'] as const, ['keyGain', 'vec4<f32>', 'read'] as const]),
  ];
}

/** Statements that leave the eight elements of a lane's head in `<name>0` and `<name>1`: loaded, normed, turned. `sub` is the lane within the head. */
export function turnedText({ width, pairing, eps }: AttendProblem, name: string, first: string, gain: (i: number) => string): string {
  const lanes = width / 8;
  const load = `  var ${name}0 = raw[${first} + sub * 2u];\n  var ${name}1 = raw[${first} + sub * 2u + 1u];\n`;
  const steps = range(Math.log2(lanes));
  const norm =
    eps === undefined
      ? ''
      : `  var ${name}Sum = dot(${name}0, ${name}0) + dot(${name}1, ${name}1);
${steps.map((i) => `  ${name}Sum += subgroupShuffleXor(${name}Sum, ${2 ** i}u);\n`).join('')}  let ${name}Norm = inverseSqrt(${name}Sum * ${f32Literal(1 / width)} + ${f32Literal(eps)});
  ${name}0 *= ${name}Norm * ${gain(0)};
  ${name}1 *= ${name}Norm * ${gain(1)};
`;
  const turn =
    pairing === 'adjacent'
      ? [0, 1]
          .map((i) => `  ${name}${i} = ${name}${i} * turn${i}.xxzz + ${name}${i}.yxwz * vec4<f32>(-turn${i}.y, turn${i}.y, -turn${i}.w, turn${i}.w);\n`)
          .join('')
      : [0, 1].map((i) => `  ${name}${i} = ${name}${i} * cos${i} + subgroupShuffleXor(${name}${i}, ${lanes / 2}u) * sin${i};\n`).join('');
  return load + norm + turn;
}

/** The angles of the lane's elements at `position`. */
export function anglesText({ width, positions, pairing }: AttendProblem): string {
  const row = positions === 1 ? '0u' : `min(position, ${positions - 1}u) * ${width / 4}u`;
  if (pairing === 'adjacent') return `  let turn0 = angles[${row} + sub * 2u];\n  let turn1 = angles[${row} + sub * 2u + 1u];\n`;
  const at = `${row} + (sub % ${width / 16}u) * 4u`;
  return `${lines(4, (i) => `  let turn${i} = angles[${at} + ${i}u];\n`)}  let side = select(1.0, -1.0, sub < ${width / 16}u);
  let cos0 = vec4<f32>(turn0.xz, turn1.xz);
  let cos1 = vec4<f32>(turn2.xz, turn3.xz);
  let sin0 = vec4<f32>(turn0.yw, turn1.yw) * side;
  let sin1 = vec4<f32>(turn2.yw, turn3.yw) * side;
`;
}

/** Four words of halves of the eight elements `name`0 and `name`1, which halves can tell: what drivers do with others in `pack2x16float`, rounding or cutting, WGSL leaves open. */
export const packHalves = (name: string): string =>
  `vec4<u32>(pack2x16float(${name}0.xy), pack2x16float(${name}0.zw), pack2x16float(${name}1.xy), pack2x16float(${name}1.zw))`;

export const unpackHalves = (name: string, words: string): string =>
  `let ${name}0 = vec4<f32>(unpack2x16float(${words}.x), unpack2x16float(${words}.y)); let ${name}1 = vec4<f32>(unpack2x16float(${words}.z), unpack2x16float(${words}.w));`;

/**
 * `fn nearestHalf(x)`: x rounded to f16, ties to even, as f32: what the cache keeps of a token's key and value, for the token itself too. Drivers take `unpack2x16float(pack2x16float(x))` for x:
 * the token would attend to a key and a value of its own that no other attends to. What f16 has no room for, and NaN, stay as they are.
 */
export const nearestHalfFunction = `fn nearestHalf(x: vec4<f32>) -> vec4<f32> {
  let bits = bitcast<vec4<u32>>(x);
  let near = bitcast<vec4<f32>>((bits + 0xfffu + ((bits >> vec4<u32>(13u)) & vec4<u32>(1u))) & vec4<u32>(0xffffe000u));
  return select(x, near, (bits & vec4<u32>(0x7fffffffu)) < vec4<u32>(0x477ff000u));
}
`;

/** `rounded`0 and `rounded`1: eight elements as the cache keeps them. */
export const roundHalves = (rounded: string, [first, second]: readonly [string, string]): string =>
  `let ${rounded}0 = nearestHalf(${first}); let ${rounded}1 = nearestHalf(${second});`;

/** Adds n partial sums over lanes 2 `from` apart down to `to`: each step hands half of the list to the other lane, so that each lane ends with n / 2^steps whole sums. */
export function scatterSums(names: readonly string[], from: number, to: number, tag: string): { readonly text: string; readonly sums: readonly string[] } {
  let sums = names;
  let text = '';
  for (let step = from; step >= to; step /= 2) {
    const half = sums.length / 2;
    if (!Number.isInteger(half))
      throw new PlanError(`${names.length} sums cannot be shared out by lanes ${from} to ${to} apart: fewer than one is left of them`);
    const list = sums;
    const up = `${tag}Up${step}`;
    text += `  let ${up} = (lane & ${step}u) != 0u;\n`;
    sums = range(half).map((i) => `${tag}${step}_${i}`);
    text += sums
      .map(
        (name, i) =>
          `  let ${name} = select(${list[i]}, ${list[i + half]}, ${up}) + subgroupShuffleXor(select(${list[i + half]}, ${list[i]}, ${up}), ${step}u);\n`,
      )
      .join('');
  }
  return { text, sums };
}
