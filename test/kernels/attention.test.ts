import { describe, expect, it } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import { selectDecode, selectPrefill } from '../../src/kernels/attention/attention.js';
import { attentionDecodeKernel } from '../../src/kernels/attention/decode.js';
import { decodeBytes } from '../../src/kernels/attention/decode-layout.js';
import { attentionPrefillKernel, prefillBytes } from '../../src/kernels/attention/prefill.js';
import type { AttentionProblem } from '../../src/kernels/attention/text.js';

const rich: GpuCapabilities = {
  ...baseCapabilities,
  f16: true,
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 49_152, maxComputeInvocationsPerWorkgroup: 1024 },
};

const problem = (changes: Partial<AttentionProblem> = {}): AttentionProblem => ({
  rows: 1,
  heads: 32,
  kvHeads: 8,
  width: 128,
  capacity: 8192,
  keys: 'f16',
  values: 'f16',
  scale: 0.088,
  ...changes,
});

describe('selectDecode', () => {
  it('splits a long cache, shares loads among the heads of a group, and scores by four lanes', () => {
    expect(selectDecode(problem(), rich).shape).toEqual({ threads: 256, lanes: 4, slices: 1, subgroupSize: 32, direct: false, split: 128, groupHeads: 4 });
    expect(selectDecode(problem({ capacity: 131_072 }), rich).shape.split).toBe(512);
    expect(selectDecode(problem(), rich).reason).toBe(
      'splits of 128 positions and a merge for a capacity of 8192; 4 of 4 query heads share the loads; 4 lanes a score',
    );
  });

  it('takes one dispatch where the capacity is short', () => {
    expect(selectDecode(problem({ capacity: 512 }), rich).shape).toMatchObject({ direct: true, split: 512, groupHeads: 1 });
  });

  it('needs no subgroups, and no subgroup size that it does not know', () => {
    expect(selectDecode(problem(), baseCapabilities).shape).toMatchObject({ lanes: 1, subgroupSize: 0 });
    expect(selectDecode(problem(), { ...rich, subgroupMinSize: 8 }).shape).toMatchObject({ lanes: 4, subgroupSize: 0 });
    expect(attentionDecodeKernel(problem(), selectDecode(problem(), baseCapabilities).shape).features).toEqual([]);
  });

  it('stays within the guaranteed workgroup memory for every head size and ratio', () => {
    for (const width of [5, 8, 48, 64, 80, 128, 256]) {
      for (const heads of [8, 16, 56, 64, 71 * 8]) {
        for (const keys of ['f16', 'f32'] as const) {
          for (const capacity of [1, 512, 4096, 131_072]) {
            const one = problem({ width, heads, keys, values: keys, capacity });
            expect(decodeBytes(one, selectDecode(one, baseCapabilities).shape)).toBeLessThanOrEqual(16_384);
          }
        }
      }
    }
  });

  it('makes splits of the window where rows see no more', () => {
    expect(selectDecode(problem({ capacity: 131_072, window: 512 }), rich).shape).toMatchObject({ direct: true, split: 512 });
    const windowed = problem({ capacity: 131_072, window: 4096 });
    const { shape, reason } = selectDecode(windowed, rich);
    expect(shape).toMatchObject({ direct: false, split: 128 });
    expect(reason).toContain('a merge for a window of 4096');
    expect(attentionDecodeKernel(windowed, shape).workgroups).toEqual([(4096 / 128) * 8, 1, 1]);
  });

  it('keeps to 8 bindings with everything that attention may have', () => {
    for (const capacity of [512, 8192]) {
      const one = problem({ capacity, window: 4096, softcap: 50, sinks: true, keys: 'q8_planes', values: 'q8_planes' });
      expect(attentionDecodeKernel(one, selectDecode(one, rich).shape).bindings.length).toBeLessThanOrEqual(8);
    }
  });

  it('refuses heads that no workgroup can add', () => {
    expect(() => selectDecode(problem({ width: 4096 }), rich)).toThrow(/heads of 4096 elements/);
  });
});

describe('selectPrefill', () => {
  it('takes larger tiles where there is workgroup memory and work for them', () => {
    expect(selectPrefill(problem({ rows: 512 }), rich).shape).toEqual({ tileRows: 64, tileKeys: 64, slice: 32, shuffles: true });
    expect(selectPrefill(problem({ rows: 512 }), baseCapabilities).shape).toEqual({ tileRows: 32, tileKeys: 32, slice: 32, shuffles: false });
    expect(selectPrefill(problem({ rows: 2 }), rich).shape.tileRows).toBe(16);
  });

  it('shuffles only where the threads of a row lie in every subgroup', () => {
    expect(selectPrefill(problem({ rows: 512 }), { ...rich, subgroupMinSize: 8 }).shape).toMatchObject({ tileKeys: 64, shuffles: false });
  });

  it('stays within the guaranteed limits for every head size', () => {
    for (const width of [5, 8, 48, 64, 80, 128, 256, 512]) {
      const one = problem({ rows: 64, width });
      const { shape } = selectPrefill(one, baseCapabilities);
      expect(prefillBytes(one, shape)).toBeLessThanOrEqual(16_384);
      expect(attentionPrefillKernel(one, shape).workgroupSize[0]).toBeLessThanOrEqual(256);
    }
  });
});
