/** WGSL that turns one block of 32 packed weights into signed bytes and their scales, for every block type of weights-layout.ts; the binding is called `w`. */

import { halfAtFunction, superScaleFunction, wordFunction } from '../blocks.js';
import { decodeHalfFunction } from '../template.js';
import { type BlockType, planeOffset, type WeightLayout } from '../weights-layout.js';

/**
 * What a block's bytes q mean.
 * - `scale`: s q
 * - `minimum`: s q - m
 * - `halves`: s q for the first 16, t q for the last 16
 */
export type BlockScales = 'scale' | 'minimum' | 'halves';

export interface BlockBytes {
  readonly scales: BlockScales;
  /** Module-scope text. */
  readonly functions: string;
  /** Registers that hold an undecoded block: [name, type]. */
  readonly held: readonly (readonly [name: string, type: string])[];
  /** Statements that load block `b` of the shard into the registers whose names end in `id`; nothing is decoded yet. */
  fetch(id: string, b: string): string;
  /** vec4<u32> of the signed bytes of weights 0 to 15 (`part` 0) or 16 to 31 (1). */
  bytes(id: string, part: 0 | 1): string;
  /** f32 s, or vec2<f32> (s, m) or (s, t), by `scales`; `b` is the block's number in the shard. */
  scale(id: string, b: string): string;
}

type Draft = Partial<BlockBytes> &
  Pick<BlockBytes, 'scales' | 'scale'> & { readonly zero?: number; readonly five?: boolean; readonly load?: (id: string, b: string) => string };

/** Bytes of at most 7 bits less `zero`, as signed bytes: no borrow crosses a byte. */
const lessFunction = (zero: number): string => `fn less(v: vec4<u32>) -> vec4<u32> {
  return ((v | vec4<u32>(0x80808080u)) - vec4<u32>(${`0x${(zero * 0x01010101).toString(16)}u`})) ^ vec4<u32>(0x80808080u);
}
`;

export function blockBytes(layout: WeightLayout, dtype: BlockType): BlockBytes {
  const at = (name: Parameters<typeof planeOffset>[1], size: number): string => `${planeOffset(layout, name) / size}u`;
  const nibbles = (id: string, part: 0 | 1): string =>
    part === 0 ? `(q${id} & vec4<u32>(0x0f0f0f0fu))` : `((q${id} >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu))`;
  const fifth = (id: string, part: 0 | 1): string => {
    const bits = [0, 1, 2, 3].map((k) => `g${id} >> ${k + 4 * part}u`).join(', ');
    return ` | ((vec4<u32>(${bits}) & vec4<u32>(0x01010101u)) << vec4<u32>(4u))`;
  };
  const four = ({ zero = 0, five = false, load = () => '', functions = '', held = [], ...rest }: Draft): BlockBytes => ({
    functions: `${wordFunction}${decodeHalfFunction}${functions}${zero === 0 ? '' : lessFunction(zero)}`,
    held: [['q', 'vec4<u32>'], ...(five ? [['g', 'u32'] as const] : []), ...held],
    fetch: (id, b) => `q${id} = w[${b}];${five ? ` g${id} = word(${at('high', 4)} + ${b});` : ''} ${load(id, b)}`,
    bytes: (id, part) => {
      const bits = `${nibbles(id, part)}${five ? fifth(id, part) : ''}`;
      return zero === 0 ? bits : `less(${bits})`;
    },
    ...rest,
  });
  const zeroed = (zero: number, five: boolean): BlockBytes =>
    four({
      scales: 'scale',
      zero,
      five,
      functions: halfAtFunction(planeOffset(layout, 'scale')),
      held: [['d', 'f32']],
      load: (id, b) => `d${id} = scaleAt(${b});`,
      scale: (id) => `d${id}`,
    });
  const withMinimum = (five: boolean): BlockBytes =>
    four({
      scales: 'minimum',
      five,
      held: [['d', 'u32']],
      load: (id, b) => `d${id} = word(${at('scale', 4)} + ${b});`,
      scale: (id) => `vec2<f32>(decodeHalf(d${id}), -decodeHalf(d${id} >> 16u))`,
    });
  const withHeader = (five: boolean): BlockBytes =>
    four({
      scales: 'minimum',
      five,
      functions: superScaleFunction,
      held: [['h', 'vec4<u32>']],
      load: (id, b) => `h${id} = w[${at('header', 16)} + (${b} >> 3u)];`,
      scale: (id, b) => `superScale(h${id}, ${b} & 7u)`,
    });
  switch (dtype) {
    case 'q4_0':
      return zeroed(8, false);
    case 'q5_0':
      return zeroed(16, true);
    case 'q4_1':
      return withMinimum(false);
    case 'q5_1':
      return withMinimum(true);
    case 'q4_k':
      return withHeader(false);
    case 'q5_k':
      return withHeader(true);
    case 'q8_0':
      return {
        ...zeroed(8, false),
        functions: `${wordFunction}${decodeHalfFunction}${halfAtFunction(planeOffset(layout, 'scale'))}`,
        held: [
          ['q', 'vec4<u32>'],
          ['p', 'vec4<u32>'],
          ['d', 'f32'],
        ],
        fetch: (id, b) => `q${id} = w[${b} * 2u]; p${id} = w[${b} * 2u + 1u]; d${id} = scaleAt(${b});`,
        bytes: (id, part) => `${part === 0 ? 'q' : 'p'}${id}`,
      };
    case 'q6_k': {
      // Two bits of weight 16 h + 4 k + b are bits 8 b + 2 k of word h.
      const two = (id: string, part: 0 | 1): string =>
        ` | (((vec4<u32>(g${id}.${part === 0 ? 'x' : 'y'}) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(0x03030303u)) << vec4<u32>(4u))`;
      const high = planeOffset(layout, 'high') / 4;
      return {
        ...four({
          scales: 'halves',
          zero: 32,
          functions: halfAtFunction(planeOffset(layout, 'scale')),
          held: [
            ['g', 'vec2<u32>'],
            ['s', 'u32'],
            ['d', 'f32'],
          ],
          load: (id, b) =>
            `g${id} = vec2<u32>(word(${high}u + ${b} * 2u), word(${high + 1}u + ${b} * 2u)); s${id} = word(${at('scales', 4)} + (${b} >> 1u)) >> ((${b} & 1u) * 16u); d${id} = scaleAt(${b} >> 3u);`,
          scale: (id) => `d${id} * vec2<f32>(vec2<i32>(vec2<u32>(s${id}) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u))`,
        }),
        bytes: (id, part) => `less(${nibbles(id, part)}${two(id, part)})`,
      };
    }
  }
}
