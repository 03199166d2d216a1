import { type FunctionBuilder, f32x4, type Local, plus, type Statement, sequence, v128, type WasmProgram } from '../wasm/assembler.js';
import { expOfNonPositive } from '../wasm/math.js';

export type Gate = 'sigmoid' | 'silu' | 'swiglu';

/** Below it silu is less than the smallest f32; keeps the product with an underflowed exponential 0, not NaN, for -infinity. */
const siluFloor = -200;

/**
 * y = sigmoid(x), x sigmoid(x), or x sigmoid(x) u, 4 elements at a time. Parameters: x, u (unused but by swiglu), y, vectors. Sigmoid by e^-|x|, which never overflows.
 */
export function gateProgram(gate: Gate): WasmProgram {
  return { key: `gate:${gate}`, parameters: 4, body: (f) => gateBody(f, gate) };
}

function gateBody(f: FunctionBuilder, gate: Gate): Statement {
  const [x, u, y, vectors] = [f.parameter(0), f.parameter(1), f.parameter(2), f.parameter(3)];
  const [value, z, sigmoid] = [f.local('v128'), f.local('v128'), f.local('v128')];
  const exp = expOfNonPositive(f, 'gradual');
  const [one, zero, floor] = [f.once(f32x4.const(1)), f.once(f32x4.const(0)), f.once(f32x4.const(siluFloor))];
  const silu: Local<'v128'> = sigmoid;
  return f.repeat(
    vectors.get,
    value.set(v128.load(x.get)),
    z.set(f32x4.neg(f32x4.abs(value.get))),
    exp(z),
    sigmoid.set(f32x4.div(v128.select(z.get, one, f32x4.lt(value.get, zero)), f32x4.add(one, z.get))),
    gate === 'sigmoid' ? [] : [silu.set(f32x4.mul(f32x4.max(value.get, floor), sigmoid.get))],
    v128.store(y.get, gate === 'swiglu' ? f32x4.mul(silu.get, v128.load(u.get)) : sigmoid.get),
    sequence(x.set(plus(x.get, 16)), u.set(plus(u.get, 16)), y.set(plus(y.get, 16))),
  );
}

/** Vectors that cover `elements` values: values end in slots of 64 bytes, so the last vector may run over. */
export function gateVectors(elements: number): number {
  return Math.ceil(elements / 4);
}
