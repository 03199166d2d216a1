import { bytesOf } from '../../core/bytes.js';
import { byteLengthOf, type DType, dtypeNames, dtypes } from '../../core/dtype.js';
import { ArgumentError, UnsupportedError } from '../../core/errors.js';
import { isDecodable, isEncodable, quantize } from '../../quant/index.js';

/** Blocks in ggml's layout as bytes, or numbers to encode. */
export type WeightData = Float32Array | Uint8Array;

/**
 * The bytes of a weight [rows, cols] in ggml's layout: those given, checked, or the numbers encoded.
 * @throws ArgumentError for sizes that do not fit, UnsupportedError for a type that is not read or written.
 */
export function encodeWeight(name: string, data: WeightData, rows: number, cols: number, type: DType): Uint8Array {
  checkSizes(name, rows, cols, type);
  if (!(data instanceof Uint8Array || data instanceof Float32Array))
    throw new ArgumentError(
      'data',
      `weight "${name}" is a Float32Array of numbers or a Uint8Array of packed blocks, got ${typeof data}: convert numbers by Float32Array.from()`,
    );
  if (data instanceof Uint8Array) return checkedBytes(name, data, rows, cols, type);
  if (data.length !== rows * cols) {
    throw new ArgumentError('data', `weight "${name}" is [${rows}, ${cols}], ${rows * cols} numbers, got ${data.length}`);
  }
  if (!isEncodable(type)) {
    throw new UnsupportedError(`numbers cannot be encoded as ${type}; the types that can: ${namesOf(isEncodable)}. Pass packed blocks as a Uint8Array instead`);
  }
  if (type === 'f16') assertHalves(name, data);
  return type === 'f32' ? bytesOf(data) : quantize(type, data, cols);
}

/** As every type but f32 and bf16, f16 is for finite numbers, up to what it holds. */
function assertHalves(name: string, data: Float32Array): void {
  const at = data.findIndex((value) => !(Math.abs(value) < 65_520));
  if (at >= 0)
    throw new ArgumentError(
      'data',
      `weight "${name}": f16 holds finite numbers up to 65,504, but number ${at} is ${data[at]}: scale the weight down, or take f32 or bf16`,
    );
}

function checkSizes(name: string, rows: number, cols: number, type: DType): void {
  for (const [argument, size] of [
    ['rows', rows],
    ['cols', cols],
  ] as const) {
    if (!Number.isSafeInteger(size) || size < 1) throw new ArgumentError(argument, `weight "${name}" needs a whole number of ${argument} from 1, got ${size}`);
  }
  if (!isDecodable(type)) throw new UnsupportedError(`${String(type)} is no type of a weight; the types that are: ${namesOf(isDecodable)}`);
  const { block } = dtypes[type];
  if (cols % block !== 0) {
    const fitting = namesOf((candidate) => isEncodable(candidate) && cols % dtypes[candidate].block === 0);
    throw new ArgumentError(
      'cols',
      `weight "${name}": rows of ${type} are whole blocks of ${block} numbers, got ${cols} columns; these types take ${cols}: ${fitting}`,
    );
  }
}

function checkedBytes(name: string, data: Uint8Array, rows: number, cols: number, type: DType): Uint8Array {
  const wanted = byteLengthOf(type, rows * cols);
  if (data.byteLength !== wanted) throw new ArgumentError('data', `weight "${name}" is ${type} [${rows}, ${cols}], ${wanted} bytes, got ${data.byteLength}`);
  return data;
}

function namesOf(accepts: (type: DType) => boolean): string {
  return dtypeNames.filter(accepts).join(', ');
}
