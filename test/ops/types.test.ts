import { describe, expect, test } from 'vitest';
import { ShapeError } from '../../src/core/errors.js';
import type { TensorType } from '../../src/core/tensor.js';
import type { OpDefinition } from '../../src/ops/definition.js';
import type { LeafOp, OpName, OpParams } from '../../src/ops/params.js';
import { isCompute, isLeaf, isView, ops, updatedInput } from '../../src/ops/table.js';

const f32 = (...shape: number[]): TensorType => ({ dtype: 'f32', shape });
const f16 = (...shape: number[]): TensorType => ({ dtype: 'f16', shape });
const u32 = (...shape: number[]): TensorType => ({ dtype: 'u32', shape });
const state = u32(68);

type Computing = Exclude<OpName, LeafOp>;

/** Parameters as `op` takes them: the lists below are of many operations. */
function typeOf(op: Computing, params: unknown, inputs: readonly TensorType[]): TensorType {
  return (ops[op] as unknown as OpDefinition<Computing>).type(inputs, params as OpParams[Computing]);
}

type Case = readonly [what: string, op: Computing, params: unknown, inputs: readonly TensorType[], output?: TensorType];

const good: readonly Case[] = [
  ['unary', 'unary', { fn: 'exp' }, [f32(2, 3)], f32(2, 3)],
  ['binary broadcast', 'binary', { fn: 'add' }, [f32(2, 1, 3), f32(4, 1)], f32(2, 4, 3)],
  ['binary of scalars', 'binary', { fn: 'add' }, [f32(), f32(2)], f32(2)],
  ['swiglu', 'swiglu', {}, [f32(2, 3), f32(2, 3)], f32(2, 3)],
  ['reshape', 'reshape', { shape: [3, 2] }, [u32(6)], u32(3, 2)],
  ['narrow', 'narrow', { start: 1, length: 2 }, [f32(3, 5)], f32(2, 5)],
  ['packed weights', 'linear', { bias: false, residual: false }, [f32(4, 256), { dtype: 'q4_k', shape: [7, 256] }], f32(4, 7)],
  ['bias and residual', 'linear', { bias: true, residual: true }, [f32(4, 8), f32(7, 8), f32(7), f32(4, 7)], f32(4, 7)],
  ['gather', 'gatherRows', {}, [{ dtype: 'q8_0', shape: [9, 32] }, u32(2)], f32(2, 32)],
  ['norm of heads', 'rmsNorm', { eps: 1e-6 }, [f32(2, 3, 4), f32(4)], f32(2, 3, 4)],
  ['argmax', 'argmax', {}, [f32(2, 3)], u32(2)],
  ['attention', 'attention', { scale: 1 }, [f32(2, 4, 8), f16(2, 16, 8), f16(2, 16, 8), state], f32(2, 4, 8)],
  ['attention with everything', 'attention', { scale: 1, window: 3, softcap: 2 }, [f32(2, 4, 8), f16(2, 16, 8), f16(2, 16, 8), state, f32(4)], f32(2, 4, 8)],
  ['cacheWrite', 'cacheWrite', {}, [f16(2, 16, 8), f32(3, 2, 8), state], f16(2, 16, 8)],
  ['rope', 'rope', { pairing: 'halves' }, [f32(2, 4, 8), f32(16, 3, 2), state], f32(2, 4, 8)],
  ['lastRow', 'lastRow', {}, [f32(3, 5), state], f32(1, 5)],
  ['advance', 'advance', {}, [state, u32(1)], state],
  ['redraw', 'redraw', {}, [state, u32(16 + 9), f32(1, 9)], u32(1)],
];

const bad: readonly Case[] = [
  ['integers', 'unary', { fn: 'exp' }, [u32(2)]],
  ['f16 operands', 'binary', { fn: 'add' }, [f16(2), f32(2)]],
  ['sizes that do not broadcast', 'binary', { fn: 'add' }, [f32(2, 3), f32(2)]],
  ['gate and up of two shapes', 'swiglu', {}, [f32(2, 3), f32(3, 2)]],
  ['another number of elements', 'reshape', { shape: [4] }, [f32(2, 3)]],
  ['negative sizes', 'reshape', { shape: [-2, -3] }, [f32(2, 3)]],
  ['rows past the end', 'narrow', { start: 2, length: 2 }, [f32(3)]],
  ['no rows', 'narrow', { start: 0, length: 0 }, [f32(3)]],
  ['half rows', 'narrow', { start: 0.5, length: 1 }, [f32(3)]],
  ['NaN rows', 'narrow', { start: Number.NaN, length: 1 }, [f32(3)]],
  ['a depth that differs', 'linear', { bias: false, residual: false }, [f32(4, 8), f32(7, 9)]],
  ['a vector as weight', 'linear', { bias: false, residual: false }, [f32(4, 8), f32(8)]],
  ['a bias that is not declared', 'linear', { bias: false, residual: false }, [f32(4, 8), f32(7, 8), f32(7)]],
  ['a bias of another length', 'linear', { bias: true, residual: false }, [f32(4, 8), f32(7, 8), f32(8)]],
  ['a residual that broadcasts', 'linear', { bias: false, residual: true }, [f32(4, 8), f32(7, 8), f32(1, 7)]],
  ['ids that are floats', 'gatherRows', {}, [f32(9, 3), f32(2)]],
  ['ids of rank 2', 'gatherRows', {}, [f32(9, 3), u32(2, 1)]],
  ['a gain of another length', 'rmsNorm', { eps: 0 }, [f32(2, 4), f32(2)]],
  ['one axis', 'argmax', {}, [f32(3)]],
  ['heads that do not divide', 'attention', { scale: 1 }, [f32(2, 3, 8), f16(2, 16, 8), f16(2, 16, 8), state]],
  ['sinks of other heads', 'attention', { scale: 1 }, [f32(2, 4, 8), f16(2, 16, 8), f16(2, 16, 8), state, f32(2)]],
  ['a window of nothing', 'attention', { scale: 1, window: 0 }, [f32(2, 4, 8), f16(2, 16, 8), f16(2, 16, 8), state]],
  ['a negative softcap', 'attention', { scale: 1, softcap: -1 }, [f32(2, 4, 8), f16(2, 16, 8), f16(2, 16, 8), state]],
  ['caches of two capacities', 'attention', { scale: 1 }, [f32(2, 4, 8), f16(2, 16, 8), f16(2, 17, 8), state]],
  ['a packed cache', 'cacheWrite', {}, [{ dtype: 'q8_0', shape: [2, 16, 32] }, f32(3, 2, 32), state]],
  ['a table wider than the heads', 'rope', { pairing: 'halves' }, [f32(2, 4, 8), f32(16, 5, 2), state]],
  ['a state that is too short to hold an id', 'advance', {}, [u32(4), u32(1)]],
  ['a token that is a float', 'advance', {}, [state, f32(1)]],
  ['several tokens', 'advance', {}, [state, u32(2)]],
  ['counts for fewer tokens than logits', 'redraw', {}, [state, u32(16 + 8), f32(1, 9)]],
  ['logits of two rows', 'redraw', {}, [state, u32(16 + 9), f32(2, 9)]],
];

/** Parameters that are not numbers, and those that no kernel can hold as a constant. */
const badScalars: readonly (readonly [what: string, op: Computing, params: unknown, inputs: readonly TensorType[], argument: string])[] = [
  ['a missing scalar', 'unary', { fn: 'clip', a: 1 }, [f32(2)], 'b'],
  ['an eps that is NaN', 'rmsNorm', { eps: Number.NaN }, [f32(2, 3), f32(3)], 'eps'],
  ['an eps below 0', 'layerNorm', { eps: -1e-5 }, [f32(2, 3), f32(3)], 'eps'],
  ['an alpha that is infinite', 'matmul', { transposeA: false, transposeB: false, alpha: Number.POSITIVE_INFINITY }, [f32(2, 3), f32(3, 4)], 'alpha'],
  ['an unknown padding', 'conv2d', { stride: 1, padding: 'mirror' }, [f32(1, 3, 3), f32(1, 1, 2, 2)], 'padding'],
];

describe('type rules', () => {
  for (const [what, op, params, inputs, output] of good) test(`take ${what}`, () => expect(typeOf(op, params, inputs)).toEqual(output));
  for (const [what, op, params, inputs] of bad) test(`refuse ${what}`, () => expect(() => typeOf(op, params, inputs)).toThrow(ShapeError));

  for (const [what, op, params, inputs, argument] of badScalars)
    test(`refuse ${what}`, () => expect(() => typeOf(op, params, inputs)).toThrow(expect.objectContaining({ code: 'E_ARGUMENT', argument })));

  test('say what is wrong in words', () => {
    expect(() => typeOf('gatherRows', {}, [f32(9, 3), f32(2)])).toThrow('ids must be u32, got f32[2]');
  });
});

test('every name is a leaf, a view or an operation, and three give a new version of their input', () => {
  expect((['input', 'param', 'state', 'constant'] as const).every(isLeaf)).toBe(true);
  expect(Object.keys(ops).filter((name) => isView(name as OpName))).toEqual(['reshape', 'narrow']);
  expect(Object.keys(ops).filter((name) => isCompute(name as OpName)).length).toBe(Object.keys(ops).length - 2);
  expect(Object.keys(ops).filter((name) => updatedInput(name as OpName) !== undefined)).toEqual(['cacheWrite', 'advance', 'chooseNext']);
});
