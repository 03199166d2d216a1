/** WGSL of one block of 32 weights times 32 8-bit activations, for every block type of weights-layout.ts. */

import type { BlockType, WeightLayout } from '../weights-layout.js';
import { planeOffset } from '../weights-layout.js';

/** How f16 scales become f32: by the hardware where its conversion is known to keep subnormals, else by integer arithmetic. */
export type HalfDecode = 'hardware' | 'integers';

export interface BlockDot {
  /** Statements that load block `b` under names ending in `id`: nothing is decoded yet. */
  load(id: string, b: string): string;
  /** An expression for the block's contribution, with activations `xa<u>`, `xb<u>` (16 quants each) and `z<u>` (scale, scale * sum of each half). */
  value(id: string, u: string): { readonly statements: string; readonly sum: string };
}

const component = (k: number): string => 'xyzw'.charAt(k);

function dots(part: (k: number) => string, x: string): string {
  return [0, 1, 2, 3].map((k) => `dot4I8Packed(${part(k)}, ${x}.${component(k)})`).join(' + ');
}

/**
 * Shifts and masks for the 6-bit scale and minimum of block `block` of 8 in a header (d and dmin, then three words of bytes): byte j of the first two has those of block j in its low 6 bits, and
 * above them the high 2 of block j + 4, whose low 4 are nibbles of the third. They are a lane's own, once for all, where blocks are dealt to 8 lanes or more in turn.
 */
export const headerPlace = (block: string): string =>
  `let nibbleShift = (${block} & 3u) * 8u; let firstHalf = (${block} & 7u) < 4u; let byteShift = nibbleShift + select(2u, 0u, firstHalf);
  let byteMask = select(48u, 63u, firstHalf); let nibbleMask = select(15u, 0u, firstHalf);`;

/** The reader of a block type from the binding `w`. Rows of types with a header start at whole ones; `fixed`: the text stands behind `headerPlace('lane')`. */
export function blockDot(layout: WeightLayout, dtype: BlockType, w: string, halves: HalfDecode, fixed: boolean): BlockDot {
  const word = (name: Parameters<typeof planeOffset>[1], index: string): string => {
    const at = `(${planeOffset(layout, name) / 4}u + ${index})`;
    return `${w}[${at} >> 2u][${at} & 3u]`;
  };
  const low = (bits: string): string => (halves === 'hardware' ? `unpack2x16float(${bits}).x` : `decodeHalf(${bits})`);
  const high = (bits: string): string => (halves === 'hardware' ? `unpack2x16float(${bits}).y` : `decodeHalf(${bits} >> 16u)`);
  /** The half of a word that block `b` has. */
  const halfOf = (bits: string, b: string): string => low(`(${bits} >> ((${b} & 1u) * 16u))`);
  const nibbles = (id: string, extra: (k: number) => string = () => '') => ({
    first: dots((k) => `(q${id}.${component(k)} & 0x0f0f0f0fu)${extra(k)}`, 'XA'),
    second: dots((k) => `((q${id}.${component(k)} >> 4u) & 0x0f0f0f0fu)${extra(k + 4)}`, 'XB'),
  });
  const named = (text: string, u: string): string => text.replaceAll('XA', `xa${u}`).replaceAll('XB', `xb${u}`);
  const quants = (id: string, b: string): string => `let q${id} = ${w}[${b}];`;
  const fifth = (id: string) => (k: number) => ` | (((g${id} >> ${k}u) & 0x01010101u) << 4u)`;
  const pair = ({ first, second }: { first: string; second: string }, u: string): string => named(`let d0 = ${first}; let d1 = ${second};`, u);
  const scaled = (u: string): string => `(z${u}.x * f32(d0) + z${u}.z * f32(d1))`;
  const total = (u: string): string => `(z${u}.y + z${u}.w)`;
  const five = (id: string, b: string): string => ` let g${id} = ${word('high', b)};`;
  const halfScale = (id: string, b: string): string => ` let d${id} = ${word('scale', `(${b} >> 1u)`)};`;
  const zeroed = (zero: number, withHigh: boolean): BlockDot => ({
    load: (id, b) => `${quants(id, b)}${halfScale(id, b)}${withHigh ? five(id, b) : ''}`,
    value: (id, u) => ({
      statements: pair(nibbles(id, withHigh ? fifth(id) : undefined), u),
      sum: `${halfOf(`d${id}`, `b${id}`)} * (${scaled(u)} - ${zero}.0 * ${total(u)})`,
    }),
  });
  const withMinimum = (withHigh: boolean): BlockDot => ({
    load: (id, b) => `${quants(id, b)} let d${id} = ${word('scale', b)};${withHigh ? five(id, b) : ''}`,
    value: (id, u) => ({
      statements: pair(nibbles(id, withHigh ? fifth(id) : undefined), u),
      sum: `${low(`d${id}`)} * ${scaled(u)} + ${high(`d${id}`)} * ${total(u)}`,
    }),
  });
  const withHeader = (withHigh: boolean): BlockDot => ({
    load: (id, b) => `${quants(id, b)} let h${id} = ${w}[${planeOffset(layout, 'header') / 16}u + (${b} >> 3u)];${withHigh ? five(id, b) : ''}`,
    value: (id, u) => ({
      statements: `${fixed ? '' : `${headerPlace(`b${id}`)} `}let sc = ((h${id}.y >> byteShift) & byteMask) | ((h${id}.w >> nibbleShift) & nibbleMask);
    let mn = ((h${id}.z >> byteShift) & byteMask) | ((h${id}.w >> (nibbleShift + 4u)) & nibbleMask);
    ${pair(nibbles(id, withHigh ? fifth(id) : undefined), u)}`,
      sum: `${low(`h${id}.x`)} * f32(sc) * ${scaled(u)} - ${high(`h${id}.x`)} * f32(mn) * ${total(u)}`,
    }),
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
        load: (id, b) => `let q${id} = ${w}[${b} * 2u]; let p${id} = ${w}[${b} * 2u + 1u];${halfScale(id, b)}`,
        value: (id, u) => ({
          statements: `let d0 = ${named(
            dots((k) => `q${id}.${component(k)}`, 'XA'),
            u,
          )}; let d1 = ${named(
            dots((k) => `p${id}.${component(k)}`, 'XB'),
            u,
          )};`,
          sum: `${halfOf(`d${id}`, `b${id}`)} * ${scaled(u)}`,
        }),
      };
    case 'q6_k': {
      const two = (id: string) => (k: number) => {
        const shift = 4 - 2 * (k % 4);
        const g = `g${id}${k < 4 ? 'a' : 'b'}`;
        return ` | ((${shift >= 0 ? `${g} << ${shift}u` : `${g} >> ${-shift}u`}) & 0x30303030u)`;
      };
      return {
        load: (id, b) =>
          `${quants(id, b)} let g${id}a = ${word('high', `${b} * 2u`)}; let g${id}b = ${word('high', `${b} * 2u + 1u`)}; let s${id} = ${word('scales', `(${b} >> 1u)`)}; let d${id} = ${word('scale', `(${b} >> 4u)`)};`,
        value: (id, u) => ({
          statements: `${pair(nibbles(id, two(id)), u)} let sv = s${id} >> ((b${id} & 1u) * 16u);
    let s0 = f32(bitcast<i32>(sv << 24u) >> 24u); let s1 = f32(bitcast<i32>(sv << 16u) >> 24u);`,
          sum: `${halfOf(`d${id}`, `(b${id} >> 3u)`)} * (s0 * (z${u}.x * f32(d0) - 32.0 * z${u}.y) + s1 * (z${u}.z * f32(d1) - 32.0 * z${u}.w))`,
        }),
      };
    }
  }
}
