/** f16 as the form in which a producer hands its values to products on matrices: no pass in between, and half the bytes. */

import type { LoweringContext, TensorRef } from '../../ops/target.js';

/** Rows of f16, clamped to its range, without padding. */
export const halfForm = 'f16';

/** Whether all readers of a node's output take it as f16. */
export function wantsHalves({ forms }: LoweringContext): boolean {
  return forms !== undefined && !forms.wanted.plain && forms.wanted.form?.kind === halfForm;
}

/** Where a node leaves its output as f16, in its place. */
export function halvesOf(output: TensorRef, context: LoweringContext): TensorRef {
  const ref = context.scratch({ dtype: 'f16', shape: output.type.shape });
  context.forms?.provide(ref);
  return ref;
}

/** The f16 rows that x's producer has made, if it has. */
export function madeHalves(x: TensorRef, { forms }: LoweringContext): TensorRef | undefined {
  const made = forms?.made(x);
  return made?.type.dtype === 'f16' ? made : undefined;
}

/**
 * `fn pack4(v)`: four f16. What lies beyond their range becomes the largest: a sum with it stays finite, and no infinity less infinity turns into NaN. Activations of trained models stay far
 * below. NaN stays NaN, which `clamp` may make a number of: hence infinities become the largest here, in the bits of two halves at a time, where they are told from NaN for the same work.
 */
export const packHalvesFunction = `fn pack4(v: vec4<f32>) -> vec2<u32> {
  let halves = bitcast<vec2<u32>>(vec4<f16>(v));
  let others = (((halves & vec2<u32>(0x7fff7fffu)) ^ vec2<u32>(0x7c007c00u)) + vec2<u32>(0x7fff7fffu)) & vec2<u32>(0x80008000u);
  return halves - ((others ^ vec2<u32>(0x80008000u)) >> vec2<u32>(15u));
}
`;

/** `fn limited(v)`: the same for what is not f16 yet. NaN is told by its bits: a compiler that takes floats for numbers drops `v != v`. */
export const limitedFunction = `fn limited(v: vec4<f32>) -> vec4<f32> {
  let most = clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0));
  return select(most, v, (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}
`;
