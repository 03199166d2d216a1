import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { byteLengthOf, dtypes } from '../../src/core/dtype.js';
import { blockFormats, blockLayout, groupRows, packedTypes } from '../../src/cpu/formats.js';
import { packRows, unpackRow } from '../../src/cpu/pack.js';
import { cpuTarget } from '../../src/cpu/target.js';
import { dequantize } from '../../src/quant/index.js';
import { fixture } from '../support/fixtures.js';

const columns = 512;

/** Units in the last place between two f32 values. */
function ulps(a: number, b: number): number {
  const bits = new Int32Array(new Float32Array([a, b]).buffer);
  const [x, y] = [bits[0] ?? 0, bits[1] ?? 0].map((value) => (value < 0 ? -(value & 0x7fffffff) : value));
  return Math.abs((x ?? 0) - (y ?? 0));
}

function unpackAll(dtype: (typeof packedTypes)[number], storage: Uint8Array, rows: number, width: number): Float32Array {
  const out = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) unpackRow(dtype, width, storage, row, out, row * width);
  return out;
}

describe('packed weights', () => {
  it.each(packedTypes)('%s keeps the values of the fixtures within 1 ulp', (dtype) => {
    const name = dtype.replace('_k', '_K');
    const blocks = new Uint8Array(readFileSync(fixture(`quant/${name}.bin`)));
    const wanted = new Float32Array(Uint8Array.from(readFileSync(fixture(`quant/${name}.f32`))).buffer);
    const got = unpackAll(dtype, packRows(dtype, columns, blocks), wanted.length / columns, columns);
    const worst = wanted.reduce((most, value, i) => Math.max(most, ulps(value, got[i] ?? Number.NaN)), 0);
    expect(worst).toBeLessThanOrEqual(1);
  });

  it.each(packedTypes)('%s keeps every bit of any blocks', (dtype) => {
    const width = dtypes[dtype].block * 2;
    const finite = (values: Float32Array): boolean => values.every(Number.isFinite);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 19 }), fc.infiniteStream(fc.nat(255)), (rows, bytes) => {
        const blocks = Uint8Array.from(bytes.take(byteLengthOf(dtype, rows * width)));
        const wanted = dequantize(dtype, blocks);
        fc.pre(finite(wanted));
        expect(unpackAll(dtype, packRows(dtype, width, blocks), rows, width)).toEqual(wanted);
      }),
      { numRuns: 5 },
    );
  });

  it.each(packedTypes)("%s takes ggml's bytes, but for the scales of Q4_K and Q5_K", (dtype) => {
    const bytes = blockLayout(blockFormats[dtype]).blockBytes / groupRows;
    expect(bytes).toBe(dtypes[dtype].bytes + (dtype === 'q4_k' || dtype === 'q5_k' ? 4 : 0));
  });

  it('is the same in pieces', () => {
    const { weights } = cpuTarget();
    const type = { dtype: 'q6_k', shape: [19, 256] } as const;
    const blocks = Uint8Array.from({ length: byteLengthOf('q6_k', 19 * 256) }, (_, i) => (i * 37) % 251);
    const storage = (pieces: readonly [first: number, end: number][]): Uint8Array => {
      const out = new Uint8Array(weights.byteLength(type));
      for (const [first, end] of pieces) {
        for (const { offset, bytes } of weights.pack(type, first, blocks.subarray(first * 210, end * 210))) out.set(bytes, offset);
      }
      return out;
    };
    expect(
      storage([
        [0, 8],
        [8, 19],
      ]),
    ).toEqual(storage([[0, 19]]));
    expect(() => weights.pack(type, 4, blocks.subarray(0, 210))).toThrow(/multiples of 8/);
  });

  it('refuses a packed weight that is no matrix of whole blocks', () => {
    expect(() => cpuTarget().weights.byteLength({ dtype: 'q4_k', shape: [4, 128] })).toThrow(/multiple of 256/);
  });
});
