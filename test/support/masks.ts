import { baseCapabilities, type CapabilityMask } from '../../src/core/capabilities.js';
import type { Way } from './share.js';

/** The devices that kernels are tested as: the adapter itself, and poorer ones. */
export const masks: readonly (readonly [name: string, mask: CapabilityMask])[] = [
  ['everything it has', {}],
  ['no f16 and no subgroups', { f16: false, subgroups: false }],
  ['the guaranteed limits and no feature', { f16: false, subgroups: false, packedDot: false, limits: baseCapabilities.limits }],
];

/** The same, with the share of the cases that each takes. */
export const maskedWays: readonly (readonly [name: string, mask: CapabilityMask, way: Way])[] = masks.map(([name, mask], way) => [
  name,
  mask,
  { ways: masks.length, way },
]);
