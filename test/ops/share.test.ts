import { describe, expect, it } from 'vitest';
import { adapterNames } from '../../scripts/setup/adapters.mjs';
import { weightTypes } from '../../src/kernels/weights-layout.js';
import type { OpCase } from '../../src/ops/case.js';
import { attentionCases } from '../../src/ops/cases/attention.js';
import { allCases } from '../../src/ops/cases/index.js';
import { linearCases } from '../../src/ops/cases/linear.js';
import { maskedWays } from '../support/masks.js';
import { type Dealing, shareOf } from '../support/share.js';

/** Case names of every adapter as every device that it poses as. */
function shares<T extends OpCase>(cases: readonly T[], ways: number, options: Dealing<T> = {}): readonly string[][] {
  return adapterNames.flatMap((adapter) =>
    Array.from({ length: ways }, (_, way) => shareOf(adapter, cases, { ...options, ways, way }).map((opCase) => opCase.name)),
  );
}

const everything = allCases();
const linear = linearCases();
const attention = attentionCases();

describe('the shares of the software adapters', () => {
  it.each([1, 2, 3])('hold every case of every operation exactly once between them: %i ways', (ways) => {
    const names = new Set(everything.map(({ op }) => op));
    expect(names.size).toBeGreaterThan(15);
    for (const name of names) {
      const cases = everything.filter(({ op }) => op === name);
      for (const slow of [() => false, (opCase: OpCase) => opCase.name.length % 2 === 0]) {
        expect(shares(cases, ways, { slow }).flat().toSorted()).toEqual(cases.map((opCase) => opCase.name).toSorted());
      }
    }
  });

  it.each(adapterNames)('give %s every weight type', (adapter) => {
    for (const dtype of weightTypes) {
      const cases = linear.filter((opCase) => opCase.inputs[1]?.type.dtype === dtype);
      expect(shareOf(adapter, cases).length).toBeGreaterThan(0);
    }
  });

  it.each(adapterNames)('give %s short and long caches of both types and many rows, with every mask', (adapter) => {
    for (const [, , way] of maskedWays) {
      const cases = shareOf(adapter, attention, way).map(({ inputs }) => ({ rows: inputs[0]?.type.shape[0] ?? 0, cache: inputs[1]?.type }));
      const decodes = cases.filter(({ rows }) => rows === 1);
      expect(cases.length).toBeGreaterThan(decodes.length);
      expect(new Set(cases.map(({ cache }) => cache?.dtype))).toEqual(new Set(['f32', 'f16']));
      expect(new Set(decodes.map(({ cache }) => (cache?.shape[1] ?? 0) > 1024)).size).toBe(2);
    }
  });
});
