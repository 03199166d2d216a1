import { f32x4, i16x8, i32, i32x4, plus, v128, type WasmProgram } from '../wasm/assembler.js';
import { halfDecoder } from '../wasm/math.js';

/** Blocks of 32 signed bytes with f16 scales to f32. Parameters: bytes, scales, y, blocks (at least 1). */
export const planesToFloats: WasmProgram = {
  key: 'planesToFloats',
  parameters: 4,
  body(f) {
    const [bytes, scales, y, blocks] = [f.parameter(0), f.parameter(1), f.parameter(2), f.parameter(3)];
    const half = halfDecoder(f);
    const scale = f.local('v128');
    return f.repeat(
      blocks.get,
      scale.set(half(i32x4.splat(i32.load16s(scales.get)))),
      Array.from({ length: 8 }, (_, i) => {
        const four = i32x4.extendLowS(i16x8.extendLowS(v128.load32zero(bytes.get, 4 * i)));
        return v128.store(y.get, f32x4.mul(f32x4.convert(four), scale.get), 16 * i);
      }),
      bytes.set(plus(bytes.get, 32)),
      scales.set(plus(scales.get, 2)),
      y.set(plus(y.get, 128)),
    );
  },
};
