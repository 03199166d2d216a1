import type { CapabilityMask } from '../../src/core/capabilities.js';

/** What `--without` takes away: a benchmark then runs as on a device that lacks it. */
export function maskOf(names: readonly string[]): CapabilityMask {
  const masks: { readonly [name: string]: CapabilityMask } = {
    'subgroup-matrix': { subgroupMatrices: false },
    f16: { f16: false },
    subgroups: { subgroups: false },
    'packed-dot': { packedDot: false },
  };
  const found = names.map((name) => {
    const own = masks[name];
    if (own === undefined) throw new Error(`--without knows ${Object.keys(masks).join(', ')}; got ${name}`);
    return own;
  });
  return Object.assign({}, ...found) as CapabilityMask;
}
