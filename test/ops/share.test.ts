import { describe, expect, it } from 'vitest';
import { adapterNames } from '../../scripts/setup/adapters.mjs';
import { weightTypes } from '../../src/kernels/weights-layout.js';
import type { OpCase } from '../../src/ops/case.js';
import { allCases } from '../../src/ops/cases/index.js';
import { linearCases } from '../../src/ops/cases/linear.js';
import { attentionCasesToDeal, wideHeads } from '../support/attention-cases.js';
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
const attention = attentionCasesToDeal();

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

  it('give SwiftShader short and long caches of all types and many rows with every mask, and lavapipe long ones', () => {
    const longCache = ({ inputs }: OpCase): boolean => (inputs[1]?.type.shape[1] ?? 0) > 1024;
    const oneRow = ({ inputs }: OpCase): boolean => inputs[0]?.type.shape[0] === 1;
    for (const [, , way] of maskedWays) {
      const cases = shareOf('swiftshader', attention, { ...way, slow: wideHeads });
      expect(cases.every(oneRow)).toBe(false);
      expect(new Set(cases.map(({ inputs }) => inputs[1]?.type.dtype))).toEqual(new Set(['f32', 'f16', 'q8_planes']));
      expect(new Set(cases.filter(oneRow).map(longCache)).size).toBe(2);
      expect(shareOf('lavapipe', attention, { ...way, slow: wideHeads }).some(longCache)).toBe(true);
    }
    const all = maskedWays.flatMap(([, , way]) => shareOf('lavapipe', attention, { ...way, slow: wideHeads }));
    expect(all.every(oneRow)).toBe(false);
    expect(all.filter(oneRow).every(longCache)).toBe(false);
  });
});
