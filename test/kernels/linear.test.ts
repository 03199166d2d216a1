import { describe, expect, it } from 'vitest';
import { baseCapabilities, type GpuCapabilities } from '../../src/core/capabilities.js';
import { linearKernel, linearRule, matmulTiles, selectLinear } from '../../src/kernels/linear.js';
import { tileBytes, tileSize } from '../../src/kernels/matmul.js';
import { weightLayout } from '../../src/kernels/weights-layout.js';
import type { TensorRef } from '../../src/ops/target.js';

const large: GpuCapabilities = {
  ...baseCapabilities,
  limits: { ...baseCapabilities.limits, maxComputeWorkgroupStorageSize: 49_152 },
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
};

describe('the choice of a linear kernel', () => {
  it.each([
    ['a subgroup of known size per team', large, { team: 'subgroup', threads: 128, subgroupSize: 32 }],
    ['a workgroup of subgroups of several sizes', { ...large, subgroupMinSize: 8, subgroupMaxSize: 128 }, { team: 'subgroups', threads: 128, subgroupSize: 8 }],
    ['a workgroup without subgroups', baseCapabilities, { team: 'tree', threads: 64 }],
  ] as const)('for one row is %s', (_name, capabilities, wanted) => {
    const choice = selectLinear({ rows: 1, outputs: 4096 }, capabilities);
    expect(choice).toMatchObject({ family: 'matvec', shape: { ...wanted, teamRows: 2 } });
    expect(choice.reason).toContain('every weight is read once');
  });

  it('gives a team more rows where there are many outputs', () => {
    const teamRows = [1, 2047, 2048, 8192, 128_256].map((outputs) => {
      const choice = selectLinear({ rows: 1, outputs }, large);
      return choice.family === 'matvec' ? choice.shape.teamRows : undefined;
    });
    expect(teamRows).toEqual([1, 1, 2, 4, 4]);
  });

  it('moves from vectors to tiles at nine rows', () => {
    expect([8, 9].map((rows) => selectLinear({ rows, outputs: 512 }, large).family)).toEqual(['matvec', 'matmul']);
  });

  it.each([
    [16, 4096, large, '16x64 single'],
    [64, 1024, large, '32x32 single'],
    [512, 4096, large, '64x64 single'],
    [2048, 4096, large, '128x128 double'],
    [2048, 4096, baseCapabilities, '128x128 single'],
    [2048, 4096, { ...large, software: true }, '32x32 short'],
  ] as const)('tiles %d rows by %d outputs', (rows, outputs, capabilities, wanted) => {
    const choice = selectLinear({ rows, outputs }, capabilities);
    expect(choice.family === 'matmul' ? `${tileSize(choice.tile).join('x')} ${choice.tile.schedule}` : choice.family).toBe(wanted);
  });

  it('always has a tile that the poorest device runs', () => {
    const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = baseCapabilities.limits;
    const fitting = matmulTiles.filter(
      (tile) => tile.threads[0] * tile.threads[1] <= maxComputeInvocationsPerWorkgroup && tileBytes(tile) <= maxComputeWorkgroupStorageSize,
    );
    expect(fitting.map((tile) => `${tileSize(tile).join('x')} ${tile.schedule}`)).toEqual([
      '128x128 single',
      '64x64 single',
      '32x32 single',
      '16x64 single',
      '32x32 short',
      '16x64 short',
    ]);
  });
});

const whole = (id: number, dtype: 'f32' | 'q4_0', shape: readonly number[]): TensorRef => ({
  id,
  type: { dtype, shape },
  shards: [{ start: 0, rows: shape[0] ?? 1 }],
});

describe('the steps of linear', () => {
  const node = {
    op: 'linear',
    params: { bias: true, residual: true },
    inputs: [whole(0, 'f32', [1, 64]), whole(1, 'q4_0', [40, 64]), whole(2, 'f32', [40]), whole(3, 'f32', [1, 40])],
    output: whole(4, 'f32', [1, 40]),
    label: 'out',
    id: 4,
  } as const;
  const context = { scratch: () => node.output, derived: () => ({ ref: node.output, fresh: true }) };

  it('bind x, the weight, bias, residual and y, and offer y in the residual’s place', () => {
    const [step] = linearRule(baseCapabilities)(node, context);
    expect(step?.args.map(({ value, access }) => `${value} ${access}`)).toEqual(['0 read', '1 read', '2 read', '3 read', '4 write']);
    expect(step?.inPlace).toMatchObject({ input: 3, output: 4 });
    expect([step?.kernel.bindings.length, step?.inPlace?.kernel.bindings.length]).toEqual([5, 4]);
    expect(step?.inPlace?.kernel.key).not.toBe(step?.kernel.key);
  });

  it('are one for each shard, none in place', () => {
    const [x, w, ...rest] = node.inputs;
    const shards = [
      { start: 0, rows: 24 },
      { start: 24, rows: 16 },
    ];
    const steps = linearRule(baseCapabilities)({ ...node, inputs: [x, { ...w, shards }, ...rest] }, context);
    expect(steps.map((step) => [step.args[1]?.shard, step.label, step.inPlace])).toEqual([
      [0, 'out (rows 0 on)', undefined],
      [1, 'out (rows 24 on)', undefined],
    ]);
    expect(new Set(steps.map((step) => step.kernel.key)).size).toBe(2);
  });

  it('multiply by a q4_0 matrix with this text', () => {
    const layout = weightLayout({ dtype: 'q4_0', shape: [40, 1024] });
    const kernel = linearKernel({ layout, start: 0, outputs: 40, rows: 1, bias: false, residual: 'read' }, large);
    expect(kernel.wgsl()).toMatchInlineSnapshot(`
      "enable subgroups;
      @group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
      @group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;
      @group(0) @binding(2) var<storage, read> residual: array<f32>;
      @group(0) @binding(3) var<storage, read_write> y: array<f32>;
      fn decodeHalf(h: u32) -> f32 {
        let magnitude = h & 0x7fffu;
        let sign = (h & 0x8000u) << 16u;
        let small = bitcast<u32>(bitcast<f32>((magnitude << 13u) + 0x38800000u) - 0.00006103515625f);
        let wide = (magnitude << 13u) + select(0x38000000u, 0x70000000u, magnitude >= 0x7c00u);
        return bitcast<f32>(sign | select(wide, small, magnitude < 0x0400u));
      }
      fn bytes(packed: u32, zero: f32) -> vec4<f32> {
        return bitcast<vec4<f32>>(((vec4<u32>(packed) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)) | vec4<u32>(0x4b000000u)) - (8388608.0 + zero);
      }
      fn word(i: u32) -> u32 { return w[i >> 2u][i & 3u]; }
      fn scaleAt(i: u32) -> f32 { return decodeHalf(word(5120u + (i >> 1u)) >> ((i & 1u) * 16u)); }
      fn weight4(row: u32, quad: u32) -> vec4<f32> {
        let b = row * 32u + (quad >> 3u);
        let k = quad & 7u;
        let d = scaleAt(b);
        return d * bytes(((w[b][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu), 8.0);
      }
      @compute @workgroup_size(128)
      fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
        let group = workgroup.x;

        // Rows beyond the shard repeat its last row, so that every load is in bounds; their sums are not written.
        let row = (group * 4u + local / 32u) * 1u;
        let row0 = min(row + 0u, 39u);
        var a0_0 = 0.0;
        {
        let c0 = (0u + 0u) * 32u + lane;
        let b0_0 = row0 * 32u + c0; let q0_0 = w[b0_0]; let d0_0 = scaleAt(b0_0);
        let x0_0 = x[c0 * 8u + 0u];
        let x0_1 = x[c0 * 8u + 1u];
        let x0_2 = x[c0 * 8u + 2u];
        let x0_3 = x[c0 * 8u + 3u];
        let x0_4 = x[c0 * 8u + 4u];
        let x0_5 = x[c0 * 8u + 5u];
        let x0_6 = x[c0 * 8u + 6u];
        let x0_7 = x[c0 * 8u + 7u];
        a0_0 += d0_0 * (dot(bytes((q0_0.x & 0x0f0f0f0fu), 8.0), x0_0) + dot(bytes((q0_0.y & 0x0f0f0f0fu), 8.0), x0_1) + dot(bytes((q0_0.z & 0x0f0f0f0fu), 8.0), x0_2) + dot(bytes((q0_0.w & 0x0f0f0f0fu), 8.0), x0_3) + dot(bytes(((q0_0.x >> 4u) & 0x0f0f0f0fu), 8.0), x0_4) + dot(bytes(((q0_0.y >> 4u) & 0x0f0f0f0fu), 8.0), x0_5) + dot(bytes(((q0_0.z >> 4u) & 0x0f0f0f0fu), 8.0), x0_6) + dot(bytes(((q0_0.w >> 4u) & 0x0f0f0f0fu), 8.0), x0_7));
        }
        a0_0 = subgroupAdd(a0_0);
        if (lane == 0u) {
          if (row + 0u < 40u) {
            y[(row + 0u)] = a0_0 + residual[(row + 0u)];
          }
        }
      }
      "
    `);
  });
});
