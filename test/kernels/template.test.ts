import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { broadcastAxes } from '../../src/kernels/elementwise.js';
import { selectNorm } from '../../src/kernels/norm.js';
import { canonical, defineKernel, f32Literal, foldGrid, maxGridAxis } from '../../src/kernels/template.js';
import { broadcastShapes, broadcastStrides, stridedOffset } from '../../src/ops/elementwise.js';

describe('defineKernel', () => {
  const spec = {
    family: 'f',
    params: { b: 1, a: [2, 'x'] },
    bindings: ['read'] as const,
    workgroups: [1, 1, 1] as const,
    workgroupSize: 64,
    wgsl: () => 'text',
  };

  it('keys kernels by every parameter, whatever their order', () => {
    expect(defineKernel(spec).key).toBe('f {a:[2,"x"],b:1,features:[],size:[64,1,1],workgroups:[1,1,1]}');
    expect(defineKernel({ ...spec, params: { a: [2, 'x'], b: 1 } }).key).toBe(defineKernel(spec).key);
    expect(defineKernel({ ...spec, workgroupSize: 32 }).key).not.toBe(defineKernel(spec).key);
  });

  it('tells numbers apart that JSON does not', () => {
    expect([0, -0, Number.NaN, Number.POSITIVE_INFINITY].map(canonical)).toEqual(['0', '-0', 'NaN', 'Infinity']);
  });

  it('enables the features that it names', () => {
    expect(defineKernel({ ...spec, features: ['shader-f16', 'subgroups'] }).wgsl()).toBe('enable f16;\nenable subgroups;\ntext');
  });
});

describe('f32Literal', () => {
  it('reads back as the same f32', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), (value) => {
        const text = f32Literal(value).replaceAll(/[()f]/g, '');
        expect(Object.is(Math.fround(Number(text)), Math.fround(value))).toBe(true);
      }),
    );
  });

  it('leaves what WGSL refuses to a function', () => {
    expect(f32Literal(Number.NEGATIVE_INFINITY)).toBe('nonFinite(0xff800000u)');
  });
});

describe('foldGrid', () => {
  it('covers the count within the limits, with less than a row to spare', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4_000_000_000 }), (count) => {
        const [x, y] = foldGrid(count);
        expect(x).toBeLessThanOrEqual(maxGridAxis);
        expect(y).toBeLessThanOrEqual(maxGridAxis);
        expect(x * y).toBeGreaterThanOrEqual(count);
        expect(x * y - count).toBeLessThan(y);
      }),
    );
  });
});

describe('broadcastAxes', () => {
  const shape = fc.array(fc.constantFrom(1, 2, 3, 4), { minLength: 0, maxLength: 4 });

  it('walks both operands as the unmerged strides do', () => {
    fc.assert(
      fc.property(
        shape,
        fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
        fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
        (full, onesA, onesB) => {
          const [a, b] = [onesA, onesB].map((ones) => full.map((size, axis) => (ones[axis] ? 1 : size))) as [number[], number[]];
          const output = broadcastShapes('test', a, b);
          const axes = broadcastAxes(a, b, output);
          const sizes = axes.map((axis) => axis.size);
          const count = output.reduce((product, size) => product * size, 1);
          expect(sizes.reduce((product, size) => product * size, 1)).toBe(count);
          for (let i = 0; i < count; i++) {
            for (const [operand, operandShape] of [
              ['a', a],
              ['b', b],
            ] as const) {
              const strides = axes.map((axis) => axis[operand]);
              expect(stridedOffset(i, sizes, strides)).toBe(stridedOffset(i, output, broadcastStrides(operandShape, output)));
            }
          }
        },
      ),
    );
  });

  it('merges what both walk as one', () => {
    expect(broadcastAxes([4, 8], [4, 8], [4, 8])).toEqual([{ size: 32, a: 1, b: 1 }]);
    expect(broadcastAxes([4, 8], [8], [4, 8])).toEqual([
      { size: 4, a: 8, b: 0 },
      { size: 8, a: 1, b: 1 },
    ]);
    expect(broadcastAxes([2, 4, 8], [1], [2, 4, 8])).toEqual([{ size: 64, a: 1, b: 0 }]);
  });
});

describe('selectNorm', () => {
  it('gives a thread two vectors, within the limits', () => {
    expect(selectNorm(1, 4096, { ...baseCapabilities, limits: { ...baseCapabilities.limits, maxComputeInvocationsPerWorkgroup: 1024 } })).toMatchObject({
      threads: 512,
      held: 2,
    });
    expect(selectNorm(1, 4096, baseCapabilities)).toMatchObject({ threads: 256, held: 4 });
    expect(selectNorm(1, 64, baseCapabilities)).toMatchObject({ threads: 32, held: 1 });
    expect(selectNorm(1, 100_000, baseCapabilities)).toMatchObject({ threads: 256, held: 0 });
  });

  it('gives short rows a subgroup each where there are enough of them and subgroups have one size', () => {
    const one = { ...baseCapabilities, subgroups: true, subgroupMinSize: 32, subgroupMaxSize: 32 };
    expect(selectNorm(4096, 128, one)).toMatchObject({ threads: 32, rows: 8, held: 1 });
    expect(selectNorm(4096, 512, one)).toMatchObject({ threads: 32, rows: 8, held: 4 });
    expect(selectNorm(4096, 516, one)).toMatchObject({ rows: 1 });
    expect(selectNorm(7, 128, one)).toMatchObject({ rows: 1 });
    expect(selectNorm(4096, 128, { ...one, subgroupMaxSize: 64 })).toMatchObject({ rows: 1 });
  });
});
