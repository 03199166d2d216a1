import { describe, expect, it } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import type { TensorType } from '../../src/core/tensor.js';
import { attendBytes, attendKernel } from '../../src/kernels/decode/attend.js';
import { attendMergeKernel, mergeThreads } from '../../src/kernels/decode/attend-merge.js';
import { attendProblem, selectAttend, selectSplit } from '../../src/kernels/decode/attend-select.js';
import { attendSplitKernel, splitBytes, splitStep } from '../../src/kernels/decode/attend-split.js';
import type { AttendProblem } from '../../src/kernels/decode/attend-text.js';

const rich: GpuCapabilities = {
  ...baseCapabilities,
  packedDot: true,
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 49_152, maxComputeInvocationsPerWorkgroup: 1024 },
};
const floors: GpuCapabilities = { ...rich, limits: baseCapabilities.limits };

const problem = (changes: Partial<AttendProblem> = {}): AttendProblem => ({
  ...{ heads: 32, kvHeads: 8, width: 128, capacity: 131_072, window: 131_072, positions: 131_072, pairing: 'halves', eps: undefined, scale: 0.088 },
  ...changes,
});
const narrow = (window: number, changes: Partial<AttendProblem> = {}): AttendProblem => problem({ window, ...changes });

describe('attendProblem', () => {
  const types = (changes: { cache?: 'f16' | 'f32'; width?: number; half?: number } = {}): readonly TensorType[] => {
    const { cache = 'f16', width = 128, half = width / 2 } = changes;
    const cacheType = { dtype: cache, shape: [2, 64, width] };
    return [cacheType, cacheType, { dtype: 'f32', shape: [1, 8 * width] }, { dtype: 'f32', shape: [64, half, 2] }, { dtype: 'u32', shape: [65] }];
  };
  const params = { scale: 1, pairing: 'halves', window: 64 } as const;

  it('takes the shapes from the types', () => {
    expect(attendProblem(types(), params, rich)).toMatchObject({ heads: 4, kvHeads: 2, width: 128, capacity: 64, window: 64, positions: 64 });
  });

  it('says why it refuses', () => {
    expect(attendProblem(types({ cache: 'f32' }), params, rich)).toBe('the caches are not f16');
    expect(attendProblem(types({ width: 48 }), params, rich)).toBe('heads of 48 do not fit lanes of 8 elements');
    expect(attendProblem(types({ width: 16 }), params, rich)).toBe('heads of 16 do not fit lanes of 8 elements');
    expect(attendProblem(types({ half: 32 }), params, rich)).toBe('only a part of each head turns');
    expect(attendProblem(types(), params, { ...rich, subgroupMaxSize: 64 })).toBe('the device has no subgroups of one size of 8 or more');
    expect(attendProblem(types(), params, { ...rich, packedDot: false })).toMatchObject({ heads: 4 });
  });
});

describe('selectAttend', () => {
  it('takes the shapes that were measured', () => {
    expect(selectAttend(narrow(128), rich)).toMatchObject({ subgroups: 4, slices: 2, unroll: 16 });
    expect(selectAttend(narrow(512), rich)).toMatchObject({ subgroups: 16, slices: 2, unroll: 16 });
    expect(selectAttend(narrow(640), rich)).toMatchObject({ subgroups: 20, slices: 2, unroll: 16 });
    expect(selectAttend(narrow(768), rich)).toMatchObject({ subgroups: 12, slices: 4, unroll: 32 });
    expect(selectAttend(narrow(1024), rich)).toMatchObject({ subgroups: 16, slices: 4, unroll: 16 });
  });

  it('takes more keys to a lane where few heads leave few workgroups', () => {
    const few = { heads: 12, kvHeads: 2 } as const;
    expect(selectAttend(narrow(384, few), rich)).toMatchObject({ subgroups: 12, slices: 2, unroll: 16 });
    expect(selectAttend(narrow(512, few), rich)).toMatchObject({ subgroups: 8, slices: 4, unroll: 32 });
    expect(selectAttend(narrow(640, few), rich)).toMatchObject({ subgroups: 10, slices: 4, unroll: 32 });
  });

  it('takes subgroups as the keys of narrow heads need', () => {
    const narrowHeads = { width: 64 } as const;
    expect(selectAttend(narrow(128, narrowHeads), rich)).toMatchObject({ subgroups: 4, slices: 2, unroll: 8 });
    expect(selectAttend(narrow(512, narrowHeads), rich)).toMatchObject({ subgroups: 8, slices: 2, unroll: 16 });
    expect(selectAttend(narrow(640, narrowHeads), rich)).toMatchObject({ subgroups: 10, slices: 2, unroll: 16 });
    expect(selectAttend(narrow(1024, narrowHeads), rich)).toMatchObject({ subgroups: 16, slices: 2, unroll: 16 });
  });

  it('walks over the keys of a window that no workgroup holds, as of the longest one', () => {
    for (const [problem, device] of [
      [narrow(640, { width: 256 }), rich],
      [narrow(640), floors],
      [narrow(769), rich],
    ] as const)
      expect(selectAttend(problem, device)).toEqual(selectAttend({ ...problem, window: 1024 }, device));
  });

  it('holds every key of a window once, in all shapes but the last', () => {
    for (const width of [32, 64, 128, 256])
      for (const heads of [2, 14, 32, 64])
        for (const window of [128, 256, 384, 512, 640, 768]) {
          const shape = selectAttend(narrow(window, { heads, kvHeads: 2, width }), rich);
          if (shape === undefined || shape.subgroups === 16) continue;
          const held = (shape.subgroups * shape.subgroupSize * 8 * shape.unroll) / width;
          expect(held).toBeGreaterThanOrEqual(window);
          expect(held - window).toBeLessThan((8 * shape.subgroupSize * shape.unroll) / width);
        }
  });

  it('gives a slice as many columns as a subgroup has lanes, so that every lane ends with a sum', () => {
    for (const size of [8, 16, 32, 64, 128]) {
      for (const width of [64, 128, 256]) {
        const device = { ...rich, subgroupMinSize: size, subgroupMaxSize: size };
        const shape = size <= width ? selectAttend(narrow(512, { width }), device) : undefined;
        if (shape === undefined) continue;
        expect(width / shape.slices).toBeGreaterThanOrEqual(size);
        expect(attendKernel(narrow(512, { width }), shape, { plain: true, packed: false }).wgsl()).toContain('part[subgroup *');
      }
    }
    expect(selectAttend(narrow(512, { width: 64 }), { ...rich, subgroupMinSize: 64, subgroupMaxSize: 64 })).toMatchObject({ slices: 1 });
  });

  it('leaves long windows to two dispatches, and those whose values do not fit the registers', () => {
    expect(selectAttend(narrow(1025), rich)).toBeUndefined();
    expect(selectAttend(narrow(1024, { width: 64 }), { ...floors, subgroupMinSize: 8, subgroupMaxSize: 8 })).toBeUndefined();
  });

  it('stays within the guaranteed limits', () => {
    for (const width of [32, 64, 128, 256])
      for (const heads of [2, 14, 64]) {
        const shape = selectAttend(narrow(512, { heads, kvHeads: 2, width }), floors);
        if (shape === undefined) continue;
        const kernel = attendKernel(narrow(512, { heads, kvHeads: 2, width }), shape, { plain: false, packed: true });
        expect(kernel.workgroupSize[0]).toBeLessThanOrEqual(256);
        expect(attendBytes(narrow(512, { heads, kvHeads: 2, width }), shape)).toBeLessThanOrEqual(16_384);
        expect(kernel.workgroupBytes).toBeLessThanOrEqual(16_384);
      }
  });
});

describe('selectSplit', () => {
  it('takes the shapes that were measured', () => {
    expect(selectSplit(problem(), rich)).toMatchObject({ subgroups: 4, unroll: 8, groupHeads: 4, splits: 32, ahead: true });
    expect(selectSplit(problem({ heads: 12, kvHeads: 2 }), rich)).toMatchObject({ groupHeads: 3, splits: 64 });
    expect(selectSplit(narrow(4096), rich)).toMatchObject({ groupHeads: 2, splits: 32, ahead: true });
    expect(selectSplit(narrow(4096, { heads: 12, kvHeads: 2 }), rich)).toMatchObject({ groupHeads: 3, splits: 64, ahead: false });
  });

  it('has no split that starts beyond the window, and whole query heads for odd ratios', () => {
    for (const window of [600, 1025, 4096, 40_000])
      for (const heads of [1, 3, 5, 7, 8, 12, 71]) {
        const wanted = narrow(window, { heads, kvHeads: 1 });
        const shape = selectSplit(wanted, rich);
        expect(shape.splits * splitStep(wanted, shape)).toBeLessThanOrEqual(window);
        expect(heads % shape.groupHeads).toBe(0);
        expect(attendSplitKernel(wanted, shape).workgroups[0]).toBe((shape.splits * heads) / shape.groupHeads);
      }
  });

  it('stays within the guaranteed limits, with eight bindings at most', () => {
    for (const width of [32, 64, 128, 256])
      for (const ratio of [1, 4, 6, 8]) {
        const wanted = problem({ width, heads: 2 * ratio, kvHeads: 2, eps: 1e-5 });
        const shape = selectSplit(wanted, floors);
        const kernel = attendSplitKernel(wanted, shape);
        expect(splitBytes(wanted, shape)).toBeLessThanOrEqual(16_384);
        expect(kernel.bindings.length).toBeLessThanOrEqual(8);
        const threads = mergeThreads(wanted, shape, 256);
        const merge = attendMergeKernel(wanted, shape, threads, { plain: true, packed: true });
        expect(merge.workgroupBytes).toBeLessThanOrEqual(16_384);
        expect(threads % (width / 4)).toBe(0);
      }
  });
});
