import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DType, dtypeNames, dtypes } from '../../src/core/dtype.js';
import { ArgumentError, UnsupportedError } from '../../src/core/errors.js';
import { codecs, dequantize, isDecodable, isEncodable, quantize } from '../../src/quant/index.js';
import { quantiseBytes } from '../../src/quant/q8-planes.js';
import { fixture } from '../support/fixtures.js';

interface IndexEntry {
  readonly type: number;
  readonly block: number;
  readonly bytes: number;
  readonly rms_error: number;
}

const index = JSON.parse(readFileSync(fixture('quant/index.json'), 'utf8')) as Record<string, IndexEntry>;

function floats(name: string): Float32Array {
  const bytes = readFileSync(fixture(`quant/${name}`));
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

const source = floats('source.f32');
const rowLength = 512;
const withFixture = Object.keys(index).flatMap((file) => {
  const dtype = file.toLowerCase() as DType;
  return isDecodable(dtype) ? [{ dtype, file }] : [];
});
const withEncoder = withFixture.filter(({ dtype }) => isEncodable(dtype));

function rms(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (const [i, x] of a.entries()) sum += (x - (b[i] ?? NaN)) ** 2;
  return Math.sqrt(sum / a.length);
}

describe('decoding', () => {
  it("has a reference file for each of ggml's types but f32", () => {
    expect(withFixture.map(({ dtype }) => dtype).sort()).toEqual(
      Object.keys(codecs)
        .filter((name) => name !== 'f32' && dtypes[name as DType].ggml !== undefined)
        .sort(),
    );
  });

  it.each(withFixture)('$dtype gives the reference bits', ({ dtype, file }) => {
    expect(dtypes[dtype]).toMatchObject({ ggml: index[file]?.type, block: index[file]?.block, bytes: index[file]?.bytes });
    const decoded = dequantize(dtype, readFileSync(fixture(`quant/${file}.bin`)));
    expect(new Uint32Array(decoded.buffer)).toEqual(new Uint32Array(floats(`${file}.f32`).buffer));
  });

  it('writes into the given array, at any alignment of the bytes', () => {
    const packed = readFileSync(fixture('quant/q8_0.bin'));
    const shifted = new Uint8Array(packed.length + 1);
    shifted.set(packed, 1);
    const out = new Float32Array(source.length);
    expect(dequantize('q8_0', shifted.subarray(1), out)).toBe(out);
    expect(out).toEqual(floats('q8_0.f32'));
    const plain = new Uint8Array(13);
    plain.set(new Uint8Array(Float32Array.of(1, -2, 3).buffer), 1);
    expect([...dequantize('f32', plain.subarray(1))]).toEqual([1, -2, 3]);
  });

  it('refuses broken blocks, a wrong output size and types without a codec', () => {
    expect(() => dequantize('q4_k', new Uint8Array(143))).toThrow(ArgumentError);
    expect(() => dequantize('q4_k', new Uint8Array(144), new Float32Array(255))).toThrow(ArgumentError);
    for (const dtype of dtypeNames.filter((name) => !isDecodable(name))) {
      expect(() => dequantize(dtype, new Uint8Array(0)), dtype).toThrow(UnsupportedError);
    }
  });
});

describe('encoding', () => {
  it.each(withEncoder)('$dtype is as near to the source as the reference encoder', ({ dtype, file }) => {
    const error = rms(dequantize(dtype, quantize(dtype, source, rowLength)), source);
    expect(error).toBeLessThanOrEqual(rms(floats(`${file}.f32`), source));
    // The index's figure is relative to the weights' own root mean square.
    expect(error / rms(source, new Float32Array(source.length))).toBeLessThanOrEqual((index[file]?.rms_error ?? 0) * 1.1);
  });

  it.each(['f16', 'bf16', 'q8_0'] as const)('%s writes the reference bytes', (dtype) => {
    expect(quantize(dtype, source, rowLength)).toEqual(new Uint8Array(readFileSync(fixture(`quant/${dtype}.bin`))));
  });

  it.each(withEncoder)('$dtype keeps zeros and a single spike', ({ dtype }) => {
    expect(dequantize(dtype, quantize(dtype, new Float32Array(512), 256)).every((value) => value === 0)).toBe(true);
    for (const spike of [3, -3]) {
      const values = new Float32Array(256);
      values[77] = spike;
      const decoded = dequantize(dtype, quantize(dtype, values, 256));
      expect(Math.abs((decoded[77] ?? 0) - spike), `${spike}`).toBeLessThan(0.1);
      expect(decoded.filter((value) => Math.abs(value) > 0.1).length).toBe(1);
    }
  });

  it.each(withEncoder)('$dtype stays within half a step of coarse bounds for any finite values', ({ dtype }) => {
    const bits = { f16: 10, bf16: 7, q4_0: 4, q4_1: 4, q5_0: 5, q5_1: 5, q8_0: 8, q4_k: 4, q5_k: 5, q6_k: 6 }[dtype as string] ?? 0;
    fc.assert(
      fc.property(fc.array(fc.float({ min: -1000, max: 1000, noNaN: true, noDefaultInfinity: true }), { minLength: 256, maxLength: 256 }), (numbers) => {
        const values = Float32Array.from(numbers);
        const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        const decoded = dequantize(dtype, quantize(dtype, values, 256));
        expect(decoded.every((value) => Number.isFinite(value))).toBe(true);
        expect(rms(decoded, values)).toBeLessThanOrEqual((largest * 2) / 2 ** bits + 1e-6);
      }),
      { numRuns: 60 },
    );
  });

  it('q8_planes holds what q8_0 does, the scales after the bytes', () => {
    const [planes, blocks] = [quantize('q8_planes', source, rowLength), quantize('q8_0', source, rowLength)];
    expect(dequantize('q8_planes', planes)).toEqual(dequantize('q8_0', blocks));
    expect(planes.subarray(32, 64)).toEqual(blocks.subarray(36, 68));
    expect(planes.subarray(source.length + 2, source.length + 4)).toEqual(blocks.subarray(34, 36));
  });

  it('gives bytes of what is not finite a scale that says so', () => {
    for (const odd of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const values = new Float32Array(32).fill(1);
      values[7] = odd;
      expect(quantiseBytes(values, 0, new Uint8Array(32), 0)).toBeNaN();
    }
  });

  it('refuses what it cannot hold', () => {
    expect(() => quantize('q2_k', new Float32Array(256), 256)).toThrow(UnsupportedError);
    expect(() => quantize('q4_k', new Float32Array(128), 128)).toThrow(ArgumentError);
    expect(() => quantize('q4_0', new Float32Array(96), 64)).toThrow(ArgumentError);
    expect(() => quantize('q4_0', new Float32Array(32).fill(NaN), 32)).toThrow(ArgumentError);
    expect(() => quantize('q4_0', new Float32Array(32).fill(1e9), 32)).toThrow(/65504/);
  });
});
