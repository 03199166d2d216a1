import { describe, expect, test } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import { drawKernel } from '../../src/kernels/sampling/draw.js';
import { drawThreads } from '../../src/kernels/sampling/rule.js';
import { surveyLayout } from '../../src/kernels/sampling/text.js';

function withThreads(most: number, ofX = most): GpuCapabilities {
  const limits = { ...baseCapabilities.limits, maxComputeInvocationsPerWorkgroup: most, maxComputeWorkgroupSizeX: ofX };
  return { ...baseCapabilities, limits };
}

describe('the workgroup that draws', () => {
  test.each([
    [256, 256, 256],
    [384, 384, 256],
    [512, 1024, 512],
    [1024, 1024, 1024],
    [2048, 512, 512],
    [4096, 4096, 1024],
  ])('of a device of %d invocations, %d along x, has %d threads', (most, ofX, threads) => {
    expect(drawThreads(withThreads(most, ofX))).toBe(threads);
  });

  test('fits into the guaranteed workgroup memory however many threads it has', () => {
    for (const threads of [256, 512, 1024]) {
      const { workgroupBytes } = drawKernel(128_256, { threads, subgroups: undefined });
      expect(workgroupBytes).toBeLessThanOrEqual(baseCapabilities.limits.maxComputeWorkgroupStorageSize);
    }
  });
});

test('the survey has four words for each 4096 tokens and one for each group of 16', () => {
  expect(surveyLayout(128_256)).toEqual({ vocabulary: 128_256, chunks: 32, groups: 8192, chunksAt: 16, groupsAt: 16 + 128, words: 16 + 128 + 8192 });
  expect(surveyLayout(5)).toMatchObject({ chunks: 1, groups: 256 });
});
