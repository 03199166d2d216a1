import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { dtypes } from '../../src/core/dtype.js';
import { ArgumentError, OutOfMemoryError, UnsupportedError } from '../../src/core/errors.js';
import { byteLengthOfType } from '../../src/core/tensor.js';
import { gpuWeightStore } from '../../src/kernels/weights.js';
import { isBlockType, type PlaneName, type WeightLayout, weightLayout, weightTypes } from '../../src/kernels/weights-layout.js';
import { randomWeight, seededRandom } from '../../src/ops/cases/weight-data.js';
import { dequantize, halfToFloat } from '../../src/quant/index.js';

const store = gpuWeightStore(baseCapabilities);

/** Reads weight `k` of row `row` as the planes are documented, byte by byte. */
function readWeight(layout: WeightLayout, storage: Uint8Array, row: number, k: number): number {
  const view = new DataView(storage.buffer, storage.byteOffset);
  const at = (name: PlaneName, unit: number): number => {
    const plane = layout.planes.find((entry) => entry.name === name);
    if (plane === undefined) throw new Error(`${layout.dtype} has no ${name}`);
    return plane.offset + row * plane.rowBytes + unit * plane.bytes;
  };
  const half = (byte: number): number => halfToFloat(view.getUint16(byte, true));
  const [block, lane, superBlock, sub] = [k >> 5, k & 31, k >> 8, (k >> 5) & 7];
  const nibble = (): number => (view.getUint8(at('quants', block) + (lane & 15)) >> (lane < 16 ? 0 : 4)) & 15;
  const fifth = (): number => ((view.getUint32(at('high', block), true) >>> (8 * (lane & 3) + (lane >> 2))) & 1) << 4;
  const header = (quant: number): number => {
    const from = at('header', superBlock);
    const scale = (i: number): number => view.getUint8(from + 4 + i);
    const six = sub < 4 ? scale(sub) & 63 : (scale(sub + 4) & 15) | ((scale(sub - 4) >> 6) << 4);
    const least = sub < 4 ? scale(sub + 4) & 63 : (scale(sub + 4) >> 4) | ((scale(sub) >> 6) << 4);
    return Math.fround(half(from) * six * quant - half(from + 2) * least);
  };
  switch (layout.dtype) {
    case 'q8_0':
      return half(at('scale', block)) * view.getInt8(at('quants', block) + lane);
    case 'q4_0':
      return half(at('scale', block)) * (nibble() - 8);
    case 'q5_0':
      return half(at('scale', block)) * ((nibble() | fifth()) - 16);
    case 'q4_1':
      return half(at('scale', block)) * nibble() + half(at('scale', block) + 2);
    case 'q5_1':
      return half(at('scale', block)) * (nibble() | fifth()) + half(at('scale', block) + 2);
    case 'q4_k':
      return header(nibble());
    case 'q5_k':
      return header(nibble() | fifth());
    case 'q6_k': {
      const bits = (view.getUint32(at('high', block) + 4 * (lane >> 4), true) >>> (8 * (lane & 3) + 2 * ((lane >> 2) & 3))) & 3;
      return half(at('scale', superBlock)) * view.getInt8(at('scales', superBlock) + 2 * sub + (lane >> 4)) * ((nibble() | (bits << 4)) - 32);
    }
    case 'f16':
      return half(at('values', k));
    case 'bf16':
      return dequantize('bf16', storage.slice(at('values', k), at('values', k) + 2))[0] ?? Number.NaN;
    default:
      return view.getFloat32(at('values', k), true);
  }
}

describe('packing weights', () => {
  it.each(weightTypes)('keeps the meaning of every %s weight, in whatever pieces the rows come', (dtype) => {
    const unit = dtypes[dtype].block;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 11 }), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 2 }), fc.integer(), (rows, units, cut, seed) => {
        const columns = unit === 1 ? 5 * units : unit * units;
        const input = randomWeight(dtype, rows, columns, seededRandom(seed));
        const storage = new Uint8Array(store.byteLength(input.type));
        const rowBytes = input.bytes.byteLength / rows;
        const middle = Math.min(rows, cut * store.rowGroup);
        for (const [first, last] of [[0, middle] as const, [middle, rows] as const]) {
          if (first === last) continue;
          // An odd address: a file's tensor may begin anywhere.
          const shifted = new Uint8Array(rowBytes * (last - first) + 1).subarray(1);
          shifted.set(input.bytes.subarray(first * rowBytes, last * rowBytes));
          for (const { offset, bytes } of store.pack(input.type, first, shifted)) {
            expect([offset % 4, bytes.byteLength % 4]).toEqual([0, 0]);
            storage.set(bytes, offset);
          }
        }
        const layout = weightLayout(input.type);
        const wanted = dequantize(dtype, input.bytes);
        const got = Float32Array.from(wanted, (_, i) => readWeight(layout, storage, Math.floor(i / columns), i % columns));
        const scale = wanted.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
        wanted.forEach((value, i) => {
          expect(Math.abs((got[i] ?? Number.NaN) - value)).toBeLessThanOrEqual(3e-7 * scale);
        });
      }),
      { numRuns: 12 },
    );
  });

  it('costs no byte more than alignment', () => {
    for (const dtype of weightTypes) {
      const type = { dtype, shape: [64, 512] };
      expect(store.byteLength(type)).toBe(byteLengthOfType(type));
    }
  });

  it('keeps f32 vectors as they are', () => {
    const bytes = Uint8Array.from({ length: 20 }, (_, i) => i);
    const type = { dtype: 'f32', shape: [5] } as const;
    expect(store.pack(type, 0, bytes)).toEqual([{ offset: 0, bytes }]);
    expect(store.byteLength(type)).toBe(32);
  });

  it('refuses pieces that begin inside a group of rows, and types without a kernel', () => {
    expect(() => store.pack({ dtype: 'q8_0', shape: [8, 32] }, 2, new Uint8Array(34))).toThrow(ArgumentError);
    expect(() => store.shards({ dtype: 'iq4_xs', shape: [8, 256] })).toThrow(UnsupportedError);
    expect(() => store.shards({ dtype: 'q4_k', shape: [8, 128] })).toThrow(/whole blocks of 256/);
  });
});

describe('sharding weights', () => {
  it('covers all rows in order with shards that fit a binding and begin at whole groups', () => {
    const types = fc.constantFrom(...weightTypes);
    fc.assert(
      fc.property(
        types,
        fc.integer({ min: 1, max: 5000 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 16_384, max: 200_000 }),
        (dtype, rows, units, limit) => {
          const limited = gpuWeightStore({ ...baseCapabilities, limits: { ...baseCapabilities.limits, maxStorageBufferBindingSize: limit } });
          const columns = units * (isBlockType(dtype) ? 256 : 7);
          let next = 0;
          for (const shard of limited.shards({ dtype, shape: [rows, columns] })) {
            expect(shard.start).toBe(next);
            expect(shard.start % limited.rowGroup).toBe(0);
            expect(shard.rows).toBeGreaterThan(0);
            expect(limited.byteLength({ dtype, shape: [shard.rows, columns] })).toBeLessThanOrEqual(limit);
            next += shard.rows;
          }
          expect(next).toBe(rows);
        },
      ),
    );
  });

  it('cuts a table of 128256 rows for the guaranteed binding size', () => {
    expect(store.shards({ dtype: 'q6_k', shape: [128_256, 2048] })).toEqual([
      { start: 0, rows: 64_128 },
      { start: 64_128, rows: 64_128 },
    ]);
  });

  it('says how much memory four rows would need', () => {
    expect(() => store.shards({ dtype: 'f32', shape: [8, 10_000_000] })).toThrow(OutOfMemoryError);
  });
});
