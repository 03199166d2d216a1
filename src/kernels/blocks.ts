/** WGSL that reads the packed weights of weights-layout.ts from a binding called `w` (or `w` and a suffix); rows count from the start of the shard. */

import { UnsupportedError } from '../core/errors.js';
import type { HalfDecode } from './decode/product-text.js';
import { decodeHalfFunction, range } from './template.js';
import { type BlockType, planeOffset, type WeightLayout, weightTypes } from './weights-layout.js';

/** Weights of a chunk that share a scale: `scale * quad - minimum` for every quad of four, or the quads as they are. */
export interface WeightGroup {
  /** vec4<f32> expressions of four consecutive weights each. */
  readonly quads: readonly string[];
  readonly scale?: string;
  readonly minimum?: string;
}

export interface WeightReader {
  /** Weights that `load` brings in at once: a whole block, or 16 bytes of plain values. */
  readonly chunk: number;
  /** Element type of the binding's array. */
  readonly element: 'vec4<u32>' | 'u32';
  /** Every row is whole chunks: neither x nor w needs a guard. */
  readonly aligned: boolean;
  /** Module-scope text: helpers, and `fn weight4(row: u32, quad: u32) -> vec4<f32>` for the weights 4 quad to 4 quad + 3 of a row, zeros beyond its end. */
  readonly functions: string;
  /** The same in parts, for a module with several readers: functions that all readers share where they have them, and this reader's own. */
  readonly helpers: readonly string[];
  readonly own: string;
  /** Statements that load chunk `c` of row `row` under names ending in `id`; nothing is decoded yet, so that many loads can be in flight. */
  load(id: string, row: string, c: string): string;
  /** What the chunk loaded under `id` means, in order. */
  groups(id: string): readonly WeightGroup[];
}

export interface ReaderOptions {
  /** Follows the name of the binding and of the reader's own functions. Default: none. */
  readonly suffix?: string;
  /** How f16 becomes f32. Default: by integer arithmetic, which is exact everywhere. */
  readonly halves?: HalfDecode;
}

export function weightReader(layout: WeightLayout, { suffix = '', halves = 'integers' }: ReaderOptions = {}): WeightReader {
  const draft = readerOf(layout, halves);
  if (suffix === '') return { ...draft, functions: draft.helpers.join('') + draft.own };
  const named = (text: string): string => text.replaceAll(/\b(?:w|word|scaleAt|weight1|weight4)(?=[[(])/g, (name) => `${name}${suffix}`);
  const own = named(draft.own);
  return {
    ...{ ...draft, own, functions: draft.helpers.join('') + own },
    load: (id, row, c) => named(draft.load(id, row, c)),
    groups: (id) => draft.groups(id),
  };
}

type ReaderDraft = Omit<WeightReader, 'functions'>;

function readerOf(layout: WeightLayout, halves: HalfDecode): ReaderDraft {
  switch (layout.dtype) {
    case 'u32':
    case 'i32':
      throw new UnsupportedError(`linear and gatherRows read weights of type ${weightTypes.join(', ')}; got ${layout.dtype}`);
    case 'f32':
      return wordReader(layout);
    case 'f16':
    case 'bf16':
      return halfReader(layout, halves);
    default:
      return blockReader(layout, layout.dtype, halves);
  }
}

const decodeHelpers: { readonly [H in HalfDecode]: string } = {
  integers: decodeHalfFunction,
  hardware: 'fn decodeHalf(h: u32) -> f32 { return unpack2x16float(h).x; }\n',
};

/** The word at index `i` of the binding. */
export const wordFunction = 'fn word(i: u32) -> u32 { return w[i >> 2u][i & 3u]; }\n';

function wordReader(layout: WeightLayout): ReaderDraft {
  const { columns } = layout;
  const aligned = columns % 4 === 0;
  const whole = `fn weight4(row: u32, quad: u32) -> vec4<f32> { return bitcast<vec4<f32>>(w[row * ${columns / 4}u + quad]); }\n`;
  const guarded = `fn weight1(row: u32, k: u32) -> f32 { return select(0.0, bitcast<f32>(w[row * ${columns}u + min(k, ${columns - 1}u)]), k < ${columns}u); }
fn weight4(row: u32, quad: u32) -> vec4<f32> {
  let k = quad * 4u;
  return vec4<f32>(weight1(row, k), weight1(row, k + 1u), weight1(row, k + 2u), weight1(row, k + 3u));
}
`;
  return {
    chunk: 4,
    element: aligned ? 'vec4<u32>' : 'u32',
    aligned,
    helpers: [],
    own: aligned ? whole : guarded,
    load: (id, row, c) => `let v${id} = weight4(${row}, ${c});`,
    groups: (id) => [{ quads: [`v${id}`] }],
  };
}

function halfReader({ dtype, columns }: WeightLayout, halves: HalfDecode): ReaderDraft {
  const vectors = Math.ceil(columns / 8);
  return {
    chunk: 8,
    element: 'vec4<u32>',
    aligned: columns % 8 === 0,
    helpers: dtype === 'bf16' ? [brainHalvesFunction] : [decodeHelpers[halves], halvesFunctions[halves]],
    own: `fn weight4(row: u32, quad: u32) -> vec4<f32> {
  let v = w[row * ${vectors}u + (quad >> 1u)];
  return ${dtype}Halves(select(v.xy, v.zw, (quad & 1u) == 1u));
}
`,
    load: (id, row, c) => `let v${id} = w[${row} * ${vectors}u + ${c}];`,
    groups: (id) => [{ quads: [`${dtype}Halves(v${id}.xy)`, `${dtype}Halves(v${id}.zw)`] }],
  };
}

const halvesFunctions: { readonly [H in HalfDecode]: string } = {
  integers: `fn f16Halves(p: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(decodeHalf(p.x), decodeHalf(p.x >> 16u), decodeHalf(p.y), decodeHalf(p.y >> 16u));
}
`,
  hardware: 'fn f16Halves(p: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y)); }\n',
};

const brainHalvesFunction = `fn bf16Halves(p: vec2<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(p.x << 16u, p.x & 0xffff0000u, p.y << 16u, p.y & 0xffff0000u));
}
`;

/**
 * Four unsigned bytes, less `zero`, as floats. A byte in the mantissa of 2^23 makes the float 2^23 + byte exactly: one subtraction instead of a conversion, which
 * most GPUs run at a fraction of their rate.
 */
const bytesFunction = `fn bytes(packed: u32, zero: f32) -> vec4<f32> {
  return bitcast<vec4<f32>>(((vec4<u32>(packed) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)) | vec4<u32>(0x4b000000u)) - (8388608.0 + zero);
}
`;

/** `fn scaleAt`: the 16-bit half `i` of the words from byte `offset` on, decoded. */
export const halfAtFunction = (offset: number): string =>
  `fn scaleAt(i: u32) -> f32 { return decodeHalf(word(${offset / 4}u + (i >> 1u)) >> ((i & 1u) * 16u)); }\n`;

/** d times the 6-bit scale and dmin times the 6-bit minimum of sub-block `s` of 8. */
export const superScaleFunction = `fn superScale(h: vec4<u32>, s: u32) -> vec2<f32> {
  let shift = (s & 3u) * 8u;
  let a = h.y >> shift;
  let b = h.z >> shift;
  let c = h.w >> shift;
  let first = s < 4u;
  let scale = select((c & 15u) | ((a >> 2u) & 48u), a & 63u, first);
  let least = select(((c >> 4u) & 15u) | ((b >> 2u) & 48u), b & 63u, first);
  return vec2<f32>(decodeHalf(h.x) * f32(scale), decodeHalf(h.x >> 16u) * f32(least));
}
`;

/** Bits of a block's words, and how its scale is found. Expressions are in terms of the block's number `b` in the shard and the words named below. */
interface BlockText {
  readonly helpers: readonly string[];
  readonly own: string;
  /** The subtracted zero point of a quantum. */
  readonly zero: number;
  /** Loads of the words other than the quants, under names ending in `id`. */
  load(id: string, b: string): string;
  /** Bits above the nibbles of quad `k` (0 to 7; a literal or an expression), as an operand to or in, or nothing. */
  high(id: string, k: number | string): string;
  /** Scale (and minimum) of 16 weights: `part` is 0 or 1. */
  scale(id: string, part: number | string, c: string): { readonly scale: string; readonly minimum?: string };
  /** Both halves of a block have the same scale. */
  readonly uniform: boolean;
}

const bitOfFive = (id: string, k: number | string): string => ` | (((g${id} >> ${typeof k === 'number' ? `${k}u` : k}) & 0x01010101u) << 4u)`;

function blockText(layout: WeightLayout, dtype: BlockType): BlockText {
  const word = (name: 'high' | 'scale' | 'scales', size: number): number => planeOffset(layout, name) / size;
  const none = (): string => '';
  const five = (id: string, b: string): string => `let g${id} = word(${word('high', 4)}u + ${b});`;
  const withScale = (zero: number, extra: Partial<BlockText> = {}): BlockText => ({
    helpers: [],
    own: halfAtFunction(planeOffset(layout, 'scale')),
    zero,
    load: (id, b) => `let d${id} = scaleAt(${b});`,
    high: none,
    scale: (id) => ({ scale: `d${id}` }),
    uniform: true,
    ...extra,
  });
  const withMinimum = (load: BlockText['load'], high: BlockText['high']): BlockText => ({
    helpers: [],
    own: '',
    zero: 0,
    load: (id, b) => `let d${id} = word(${word('scale', 4)}u + ${b});${load(id, b)}`,
    high,
    scale: (id) => ({ scale: `decodeHalf(d${id})`, minimum: `-decodeHalf(d${id} >> 16u)` }),
    uniform: true,
  });
  const withHeader = (load: BlockText['load'], high: BlockText['high']): BlockText => ({
    helpers: [superScaleFunction],
    own: '',
    zero: 0,
    load: (id, b) => `let h${id} = w[${planeOffset(layout, 'header') / 16}u + (${b} >> 3u)];${load(id, b)}`,
    high,
    scale: (id, _part, c) => ({ scale: `superScale(h${id}, ${c} & 7u).x`, minimum: `superScale(h${id}, ${c} & 7u).y` }),
    uniform: true,
  });
  switch (dtype) {
    case 'q8_0':
      return withScale(128);
    case 'q4_0':
      return withScale(8);
    case 'q5_0':
      return withScale(16, { load: (id, b) => `let d${id} = scaleAt(${b}); ${five(id, b)}`, high: bitOfFive });
    case 'q4_1':
      return withMinimum(none, none);
    case 'q5_1':
      return withMinimum((id, b) => ` ${five(id, b)}`, bitOfFive);
    case 'q4_k':
      return withHeader(none, none);
    case 'q5_k':
      return withHeader((id, b) => ` ${five(id, b)}`, bitOfFive);
    case 'q6_k': {
      const high = word('high', 4);
      return withScale(32, {
        load: (id, b) =>
          `let d${id} = scaleAt(${b} >> 3u); let s${id} = word(${word('scales', 4)}u + (${b} >> 1u)) >> ((${b} & 1u) * 16u); let g${id} = vec2<u32>(word(${high}u + ${b} * 2u), word(${high + 1}u + ${b} * 2u));`,
        high: (id, k) =>
          typeof k === 'number'
            ? ` | (((g${id}.${k < 4 ? 'x' : 'y'} >> ${2 * (k % 4)}u) & 0x03030303u) << 4u)`
            : ` | (((g${id}[${k} >> 2u] >> ((${k} & 3u) * 2u)) & 0x03030303u) << 4u)`,
        scale: (id, part) => ({
          scale: `d${id} * f32(bitcast<i32>(s${id} << ${typeof part === 'number' ? `${24 - 8 * part}u` : `(24u - 8u * ${part})`}) >> 24u)`,
        }),
        uniform: false,
      });
    }
  }
}

function blockReader(layout: WeightLayout, dtype: BlockType, halves: HalfDecode): ReaderDraft {
  const blocks = layout.columns / 32;
  const text = blockText(layout, dtype);
  const eight = dtype === 'q8_0';
  const component = (k: number): string => 'xyzw'.charAt(k % 4);
  const zero = `${text.zero}.0`;
  /** Signed bytes become unsigned ones by flipping their sign bits; nibbles and high bits are put together. */
  const quad = (id: string, k: number): string => {
    if (eight) return `bytes(${k < 4 ? 'q' : 'p'}${id}.${component(k)} ^ 0x80808080u, ${zero})`;
    const nibbles = k < 4 ? `q${id}.${component(k)}` : `(q${id}.${component(k)} >> 4u)`;
    return `bytes((${nibbles} & 0x0f0f0f0fu)${text.high(id, k)}, ${zero})`;
  };
  const dynamicQuad = eight
    ? `bytes(w[b * 2u + (k >> 2u)][k & 3u] ^ 0x80808080u, ${zero})`
    : `bytes(((w[b][k & 3u] >> ((k >> 2u) * 4u)) & 0x0f0f0f0fu)${text.high('', 'k')}, ${zero})`;
  const dynamicScale = text.scale('', '(k >> 2u)', 'b');
  return {
    chunk: 32,
    element: 'vec4<u32>',
    aligned: true,
    helpers: [decodeHelpers[halves], bytesFunction, ...text.helpers],
    own: `${wordFunction}${text.own}fn weight4(row: u32, quad: u32) -> vec4<f32> {
  let b = row * ${blocks}u + (quad >> 3u);
  let k = quad & 7u;
  ${text.load('', 'b')}
  return ${dynamicScale.scale} * ${dynamicQuad}${dynamicScale.minimum === undefined ? '' : ` - ${dynamicScale.minimum}`};
}
`,
    load(id, row, c) {
      const b = `b${id}`;
      const quants = eight ? `let q${id} = w[${b} * 2u]; let p${id} = w[${b} * 2u + 1u];` : `let q${id} = w[${b}];`;
      return `let ${b} = ${row} * ${blocks}u + ${c}; ${quants} ${text.load(id, b)}`;
    },
    groups(id) {
      const parts = text.uniform ? [range(8)] : [range(4), range(4).map((k) => k + 4)];
      return parts.map((quads, part) => ({ quads: quads.map((k) => quad(id, k)), ...text.scale(id, part, `b${id}`) }));
    },
  };
}
