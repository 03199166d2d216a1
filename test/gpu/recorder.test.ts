import { describe, expect, it } from 'vitest';
import type { Grid } from '../../src/core/kernel.js';
import { Recorder } from '../../src/gpu/recorder.js';
import { excerpt } from '../../src/gpu/shader-excerpt.js';

function logged() {
  const calls: string[] = [];
  const pass = {
    setPipeline: (pipeline: unknown) => calls.push(`pipeline ${pipeline}`),
    setBindGroup: (index: number, group: unknown) => calls.push(`group ${index} ${group}`),
    dispatchWorkgroups: (...grid: number[]) => calls.push(`dispatch ${grid}`),
  } as unknown as GPUComputePassEncoder;
  return { calls, pass };
}

function dispatch(pipeline: string, group: string, grid: Grid) {
  return { label: `${pipeline}${group}`, pipeline: pipeline as unknown as GPUComputePipeline, bindGroup: group as unknown as GPUBindGroup, grid };
}

describe('Recorder', () => {
  it('sets only what changes', () => {
    const recorder = new Recorder();
    for (const [pipeline, group] of [
      ['p', 'a'],
      ['p', 'b'],
      ['q', 'b'],
    ] as const)
      recorder.add(dispatch(pipeline, group, [1, 2, 3]));
    const { calls, pass } = logged();
    recorder.record(pass);
    const run = 'dispatch 1,2,3';
    expect(calls).toEqual(['pipeline p', 'group 0 a', run, 'group 0 b', run, 'pipeline q', run]);
  });

  it('records a part', () => {
    const recorder = new Recorder();
    for (const [index, name] of ['p', 'q', 'r'].entries()) recorder.add(dispatch(name, 'a', [index + 1, 1, 1]));
    const { calls, pass } = logged();
    recorder.record(pass, 1, 3);
    expect(calls).toEqual(['pipeline q', 'group 0 a', 'dispatch 2,1,1', 'pipeline r', 'dispatch 3,1,1']);
    expect(recorder.label(2)).toBe('ra');
    expect(() => recorder.label(3)).toThrow('dispatches 0 to 2');
  });
});

describe('reports', () => {
  it('shows the wrong line of a shader', () => {
    expect(excerpt('one\ntwo\nthree\nfour\nfive', 4, 2)).toMatchInlineSnapshot(`
      "2 | two
      3 | three
      4 | four
        |  ^
      5 | five"
    `);
  });
});
