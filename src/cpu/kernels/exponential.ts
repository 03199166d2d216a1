import { f32x4, plus, v128, type WasmProgram } from '../wasm/assembler.js';
import { expOfNonPositive } from '../wasm/math.js';

/** y = e^(x - largest), 4 elements at a time. Parameters: x, y, vectors, address of `largest` (f32, no element is larger). */
export const shiftedExponential: WasmProgram = {
  key: 'shiftedExponential',
  parameters: 4,
  body(f) {
    const [x, y, vectors, at] = [f.parameter(0), f.parameter(1), f.parameter(2), f.parameter(3)];
    const [value, largest] = [f.local('v128'), f.local('v128')];
    const exp = expOfNonPositive(f, 'gradual');
    return f.repeat(
      vectors.get,
      largest.set(v128.load32splat(at.get)),
      value.set(f32x4.sub(v128.load(x.get), largest.get)),
      exp(value),
      v128.store(y.get, value.get),
      x.set(plus(x.get, 16)),
      y.set(plus(y.get, 16)),
    );
  },
};
