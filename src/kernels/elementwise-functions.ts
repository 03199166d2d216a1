/**
 * f32 functions in WGSL that are right to a few units in the last place at every argument. WGSL's own may be off by thousands (`sin` is only bounded absolutely and near
 * zero, `atan` by 4096 units) and may assume that no number is infinite or NaN. Polynomials are minimax fits on the reduced ranges that the comments name.
 * Results below the smallest normal number (1.2e-38) may be 0.
 */

import type { BinaryFunction, UnaryFunction } from '../ops/params.js';
import { f32Literal, isNanFunction, nonFiniteFunction } from './template.js';

interface Piece {
  readonly needs: readonly PieceName[];
  readonly text: string;
}

type PieceName = 'nonFinite' | 'isNan' | 'pow2' | 'exp' | 'log' | 'sigmoid' | 'expm1' | 'tanh' | 'quarterTurns' | 'circle' | 'atan' | 'erfc' | 'isOdd' | 'pow';

/** c[0] + c[1] x + c[2] x^2 + ... by Horner's rule. */
function polynomial(x: string, coefficients: readonly number[]): string {
  return coefficients
    .map(f32Literal)
    .reverse()
    .reduce((sum, c) => `(${sum} * ${x} + ${c})`);
}

const pieces: { readonly [N in PieceName]: Piece } = {
  nonFinite: { needs: [], text: nonFiniteFunction },
  isNan: { needs: [], text: isNanFunction },
  pow2: {
    needs: [],
    text: `// 2^k for -126 <= k <= 127
fn pow2(k: i32) -> f32 { return bitcast<f32>(u32(k + 127) << 23u); }
`,
  },
  exp: {
    needs: ['nonFinite', 'pow2'],
    text: `// e^x = 2^n e^r, |r| <= ln(2) / 2, with ln(2) in two parts; 2^n in two factors, so that both ends of the range are reached
fn exactExp(x: f32) -> f32 {
  let y = clamp(x, -105.0f, 90.0f);
  let n = round(y * ${f32Literal(Math.LOG2E)});
  let r = (y - n * 0.693359375f) + n * 0.00021219444f;
  let p = 1.0f + r + r * r * ${polynomial('r', [0.5, 0.16666513681411743, 0.041666191071271896, 0.008369501680135727, 0.0013951549772173166])};
  let half = i32(n) / 2;
  let value = p * pow2(half) * pow2(i32(n) - half);
  return select(select(value, 0.0f, x < -103.97f), nonFinite(0x7f800000u), x > 88.722839f);
}
`,
  },
  log: {
    needs: ['nonFinite'],
    text: `// ln(m) for x = m 2^e, m in [sqrt(1/2), sqrt(2)): s = (m - 1) / (m + 1), |s| <= 0.1716; x positive and finite. Result: (ln(m), e)
fn logParts(x: f32) -> vec2<f32> {
  let shifted = bitcast<u32>(x) - 0x3f3504f3u;
  let e = f32(bitcast<i32>(shifted) >> 23u);
  let m = bitcast<f32>((shifted & 0x007fffffu) + 0x3f3504f3u);
  let s = (m - 1.0f) / (m + 1.0f);
  let z = s * s;
  return vec2<f32>(2.0f * s + s * z * ${polynomial('z', [0.6666666269302368, 0.4000033736228943, 0.28537216782569885, 0.23584020137786865])}, e);
}
fn exactLog(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) < 0x00800000u) { return nonFinite(0xff800000u); }
  if ((bits & 0x80000000u) != 0u) { return nonFinite(0x7fc00000u); }
  if (bits == 0x7f800000u) { return x; }
  let parts = logParts(x);
  return (parts.y * -0.00021219444f + parts.x) + parts.y * 0.693359375f;
}
`,
  },
  sigmoid: {
    needs: ['exp'],
    text: `fn sigmoid(x: f32) -> f32 {
  let e = exactExp(-abs(x));
  return select(e, 1.0f, x >= 0.0f) / (1.0f + e);
}
// x times its gate, 0 where the gate is 0, so that an infinite x gives no NaN
fn gated(x: f32, gate: f32) -> f32 { return select(x * gate, 0.0f, gate == 0.0f); }
`,
  },
  expm1: {
    needs: ['exp'],
    text: `fn exactExpm1(x: f32) -> f32 {
  if (abs(x) > 0.5f) { return exactExp(x) - 1.0f; }
  return x + x * x * ${polynomial('x', [0.5000000596046448, 0.1666666865348816, 0.04166531562805176, 0.008333072997629642, 0.00139974569901824, 0.00019992896704934537])};
}
`,
  },
  tanh: {
    needs: ['exp'],
    text: `fn exactTanh(x: f32) -> f32 {
  let size = abs(x);
  if (size > 0.625f) { return sign(x) * (1.0f - 2.0f / (exactExp(2.0f * min(size, 20.0f)) + 1.0f)); }
  let z = x * x;
  return x + x * z * ${polynomial('z', [-0.3333328366279602, 0.13331490755081177, -0.05374349653720856, 0.020650578662753105, -0.005717036779969931])};
}
`,
  },
  quarterTurns: {
    needs: ['pow2'],
    text: `fn multiplyHigh(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let left = (a >> 16u) * (b & 0xffffu);
  let right = (a & 0xffffu) * (b >> 16u);
  let middle = (low >> 16u) + (left & 0xffffu) + (right & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u) + (middle >> 16u);
}
// the bits of 2/pi after 32 zeros
const twoOverPi = array<u32, 9>(0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu, 0xdebbc561u);
struct Turn { angle: f32, quarter: u32 }
// x = angle + quarter pi/2 (modulo 2 pi), |angle| <= pi/4, for finite x of any size: the product of x's mantissa with the 96 bits of 2/pi that matter (Payne and Hanek)
fn quarterTurns(x: f32) -> Turn {
  let bits = bitcast<u32>(x) & 0x7fffffffu;
  if (bits < 0x3f490fdbu) { return Turn(x, 0u); }
  let mantissa = (bits & 0x007fffffu) | 0x00800000u;
  let start = min((bits >> 23u) - 120u, 134u);
  let word = start >> 5u;
  let shift = start & 31u;
  var table = twoOverPi;
  let w0 = (table[word] << shift) | select(table[word + 1u] >> ((32u - shift) & 31u), 0u, shift == 0u);
  let w1 = (table[word + 1u] << shift) | select(table[word + 2u] >> ((32u - shift) & 31u), 0u, shift == 0u);
  let w2 = (table[word + 2u] << shift) | select(table[word + 3u] >> ((32u - shift) & 31u), 0u, shift == 0u);
  let w1Low = mantissa * w1;
  var low = w1Low + multiplyHigh(mantissa, w2);
  var high = mantissa * w0 + multiplyHigh(mantissa, w1) + select(0u, 1u, low < w1Low);
  let turns = (high + 0x20000000u) >> 30u;
  high -= turns << 30u;
  let negative = (high & 0x80000000u) != 0u;
  if (negative) {
    low = ~low + 1u;
    high = ~high + select(0u, 1u, low == 0u);
  }
  if (high == 0u) {
    high = low;
    low = 0u;
    if (high == 0u) { return Turn(0.0f, turns & 3u); }
    let zeros = countLeadingZeros(high);
    return signedTurn(f32((high << zeros) >> 8u) * pow2(-54 - i32(zeros)), negative, x < 0.0f, turns);
  }
  let zeros = countLeadingZeros(high);
  let top = (high << zeros) | select(low >> ((32u - zeros) & 31u), 0u, zeros == 0u);
  return signedTurn(f32(top >> 8u) * pow2(-22 - i32(zeros)), negative, x < 0.0f, turns);
}
fn signedTurn(quarters: f32, negative: bool, mirrored: bool, turns: u32) -> Turn {
  let angle = quarters * 1.57079632679f;
  return Turn(select(angle, -angle, negative != mirrored), select(turns, 4u - turns, mirrored) & 3u);
}
`,
  },
  circle: {
    needs: ['quarterTurns', 'nonFinite'],
    text: `// sine and cosine of |x| <= pi/4
fn smallSin(x: f32) -> f32 {
  let z = x * x;
  return x + x * z * ${polynomial('z', [-0.1666666716337204, 0.008333329111337662, -0.00019839327433146536, 2.71823728326126e-6])};
}
fn smallCos(x: f32) -> f32 {
  let z = x * x;
  return 1.0f - 0.5f * z + z * z * ${polynomial('z', [0.0416666679084301, -0.0013888883404433727, 2.479951217537746e-5, -2.720954626056482e-7])};
}
fn isFinite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
// the sine of x + offset quarter turns
fn exactSin(x: f32, offset: u32) -> f32 {
  if (!isFinite(x)) { return nonFinite(0x7fc00000u); }
  let turn = quarterTurns(x);
  let quarter = turn.quarter + offset;
  let value = select(smallSin(turn.angle), smallCos(turn.angle), (quarter & 1u) == 1u);
  return select(value, -value, (quarter & 2u) == 2u);
}
fn exactTan(x: f32) -> f32 {
  if (!isFinite(x)) { return nonFinite(0x7fc00000u); }
  let turn = quarterTurns(x);
  let s = smallSin(turn.angle);
  let c = smallCos(turn.angle);
  return select(s, -c, (turn.quarter & 1u) == 1u) / select(c, s, (turn.quarter & 1u) == 1u);
}
`,
  },
  atan: {
    needs: [],
    text: `// |x| is brought below tan(pi/8) by atan(x) = pi/2 - atan(1/x) and pi/4 + atan((x - 1) / (x + 1))
fn exactAtan(x: f32) -> f32 {
  let size = min(abs(x), 1e30f);
  var base = 0.0f;
  var y = size;
  if (size > 2.4142136f) {
    base = ${f32Literal(Math.PI / 2)};
    y = -1.0f / size;
  } else if (size > 0.41421357f) {
    base = ${f32Literal(Math.PI / 4)};
    y = (size - 1.0f) / (size + 1.0f);
  }
  let z = y * y;
  let value = base + (y + y * z * ${polynomial('z', [-0.33333316445350647, 0.19998478889465332, -0.14243628084659576, 0.1059427335858345, -0.06078849732875824])});
  return select(value, -value, x < 0.0f);
}
`,
  },
  erfc: {
    needs: ['exp'],
    text: `// 1 - erf(z) for z >= 0: e^(-z^2) t P(t) with t = 1 / (1 + 0.4 z), fitted on 0 <= z <= 9.5
fn exactErfc(z: f32) -> f32 {
  let y = min(z, 10.0f);
  let t = 1.0f / (1.0f + 0.4f * y);
  let high = bitcast<f32>(bitcast<u32>(y) & 0xfffff000u);
  let scale = exactExp(-high * high) * exactExp((high - y) * (high + y));
  return scale * t * ${polynomial('t', [0.2256884127855301, 0.22538240253925323, 0.21058157086372375, 0.15462008118629456, 0.1813858598470688, -0.06624511629343033, 0.19534437358379364, -0.12151800096035004, -0.059342704713344574, 0.07150599360466003, -0.01740286871790886])};
}
// the normal distribution's share below x, half of 1 + erf(x / sqrt(2))
fn normalShare(x: f32) -> f32 {
  let tail = 0.5f * exactErfc(abs(x) * ${f32Literal(Math.SQRT1_2)});
  return select(tail, 1.0f - tail, x >= 0.0f);
}
`,
  },
  isOdd: {
    needs: [],
    text: `fn isOdd(y: f32) -> bool {
  let size = abs(y);
  return size < 16777216.0f && floor(size) == size && (u32(size) & 1u) == 1u;
}
`,
  },
  pow: {
    needs: ['nonFinite', 'isNan', 'log', 'exp', 'pow2', 'isOdd'],
    text: `// |x|^y for positive finite |x| != 1 and finite y: the whole part of y log2|x| becomes the exponent, the rest goes through the exponential
fn powerOf(size: f32, y: f32) -> f32 {
  let parts = logParts(size);
  let bounded = clamp(y, -1e10f, 1e10f);
  let logarithm = parts.x * ${f32Literal(Math.LOG2E)};
  let high = bitcast<f32>(bitcast<u32>(bounded) & 0xfffff000u);
  let whole = high * parts.y;
  let low = (bounded - high) * parts.y + bounded * logarithm;
  let n = clamp(round(whole + low), -400.0f, 400.0f);
  if (n > 129.0f) { return nonFinite(0x7f800000u); }
  if (n < -151.0f) { return 0.0f; }
  let rest = clamp(((whole - n) + low) * ${f32Literal(Math.LN2)}, -1.0f, 1.0f);
  let half = i32(n) / 2;
  return exactExp(rest) * pow2(half) * pow2(i32(n) - half);
}
fn exactPow(x: f32, y: f32) -> f32 {
  let size = abs(x);
  let infinite = bitcast<u32>(size) == 0x7f800000u;
  if (y == 0.0f) { return 1.0f; }
  if (isNan(x) || isNan(y)) { return nonFinite(0x7fc00000u); }
  let negative = (bitcast<u32>(x) & 0x80000000u) != 0u;
  var result: f32;
  if ((bitcast<u32>(y) & 0x7fffffffu) == 0x7f800000u) {
    if (size == 1.0f) { return nonFinite(0x7fc00000u); }
    return select(0.0f, nonFinite(0x7f800000u), (size > 1.0f) == (y > 0.0f));
  }
  if (size == 0.0f || infinite) {
    result = select(0.0f, nonFinite(0x7f800000u), infinite == (y > 0.0f));
  } else {
    if (negative && floor(y) != y) { return nonFinite(0x7fc00000u); }
    result = select(powerOf(size, y), 1.0f, size == 1.0f);
  }
  return select(result, -result, negative && isOdd(y));
}
`,
  },
};

/** Text of the named pieces and of what they need, each once, in order of need. */
function assemble(names: readonly PieceName[]): string {
  const done = new Set<PieceName>();
  const visit = (name: PieceName): string => {
    if (done.has(name)) return '';
    done.add(name);
    return pieces[name].needs.map(visit).join('') + pieces[name].text;
  };
  return names.map(visit).join('');
}

interface ScalarFunction {
  readonly needs: readonly PieceName[];
  readonly body: (a: string, b: string) => string;
}

/** x times a literal. Compilers take the product with a zero that they see for 0, of infinities too: these become NaN by their bits, and numbers keep their sign. */
function times(a: string): string {
  if (a !== f32Literal(0) && a !== f32Literal(-0)) return `x * ${a}`;
  const bits = 'bitcast<u32>(x)';
  const product = `bitcast<f32>(select(${bits} & 0x80000000u, ${bits} | 0x00400000u, (${bits} & 0x7f800000u) == 0x7f800000u))`;
  return a === f32Literal(0) ? product : `-${product}`;
}

const unaryBodies: { readonly [F in UnaryFunction]: ScalarFunction } = {
  silu: { needs: ['sigmoid'], body: () => 'return gated(x, sigmoid(x));' },
  relu: { needs: [], body: () => 'return max(x, 0.0f);' },
  leakyRelu: { needs: [], body: (a) => `return select(${times(a)}, x, x > 0.0f);` },
  elu: { needs: ['expm1'], body: (a) => `if (x > 0.0f) { return x; }\n  return ${a} * exactExpm1(x);` },
  clip: { needs: [], body: (a, b) => `return min(max(x, ${a}), ${b});` },
  sigmoid: { needs: ['sigmoid'], body: () => 'return sigmoid(x);' },
  tanh: { needs: ['tanh'], body: () => 'return exactTanh(x);' },
  // half of 1 + tanh(u) is the sigmoid of 2 u, which does not cancel
  gelu: {
    needs: ['sigmoid'],
    body: () => `return gated(x, sigmoid(${f32Literal(2 * Math.sqrt(2 / Math.PI))} * x * (1.0f + ${f32Literal(0.044715)} * x * x)));`,
  },
  geluErf: { needs: ['erfc', 'sigmoid'], body: () => 'return gated(x, normalShare(x));' },
  exp: { needs: ['exp'], body: () => 'return exactExp(x);' },
  log: { needs: ['log'], body: () => 'return exactLog(x);' },
  sqrt: {
    needs: ['nonFinite'],
    body: () => `if (x < 0.0f) { return nonFinite(0x7fc00000u); }
  if (x == 0.0f || bitcast<u32>(x) == 0x7f800000u) { return x; }
  return sqrt(x);`,
  },
  rsqrt: {
    needs: ['nonFinite'],
    body: () => `if (x == 0.0f) { return nonFinite(0x7f800000u | (bitcast<u32>(x) & 0x80000000u)); }
  if (x < 0.0f) { return nonFinite(0x7fc00000u); }
  if (bitcast<u32>(x) == 0x7f800000u) { return 0.0f; }
  return 1.0f / sqrt(x);`,
  },
  neg: { needs: [], body: () => 'return -x;' },
  abs: { needs: [], body: () => 'return abs(x);' },
  scale: { needs: [], body: (a) => `return ${times(a)};` },
  square: { needs: [], body: () => 'return x * x;' },
  reciprocal: {
    needs: ['nonFinite'],
    body: () => `let bits = bitcast<u32>(x);
  if (x == 0.0f) { return nonFinite(0x7f800000u | (bits & 0x80000000u)); }
  if ((bits & 0x7fffffffu) == 0x7f800000u) { return nonFinite(bits & 0x80000000u); }
  return 1.0f / x;`,
  },
  sin: { needs: ['circle'], body: () => 'return exactSin(x, 0u);' },
  cos: { needs: ['circle'], body: () => 'return exactSin(x, 1u);' },
  tan: { needs: ['circle'], body: () => 'return exactTan(x);' },
  atan: { needs: ['atan'], body: () => 'return exactAtan(x);' },
  round: { needs: [], body: () => 'return round(x);' },
};

/** Module text with `fn apply(x: f32) -> f32`: NaN stays NaN, `a` and `b` are the function's scalar parameters. */
export function unaryText(fn: UnaryFunction, a: number, b: number): string {
  const { needs, body } = unaryBodies[fn];
  const finite = Number.isFinite(Math.fround(a)) && Number.isFinite(Math.fround(b));
  const text = `fn onNumber(x: f32) -> f32 {
  ${body(f32Literal(a), f32Literal(b))}
}
fn apply(x: f32) -> f32 {
  if (isNan(x)) { return x; }
  return onNumber(x);
}
`;
  return assemble(['isNan', ...(finite ? [] : (['nonFinite'] as const)), ...needs]) + text;
}

const binaryBodies: { readonly [F in BinaryFunction]: ScalarFunction } = {
  add: { needs: [], body: () => 'return x + y;' },
  sub: { needs: [], body: () => 'return x - y;' },
  mul: { needs: [], body: () => 'return x * y;' },
  div: { needs: [], body: () => 'return x / y;' },
  max: { needs: ['isNan'], body: () => 'return select(select(max(x, y), y, isNan(y)), x, isNan(x));' },
  min: { needs: ['isNan'], body: () => 'return select(select(min(x, y), y, isNan(y)), x, isNan(x));' },
  pow: { needs: ['pow'], body: () => 'return exactPow(x, y);' },
};

/** Functions that WGSL defines on vectors as well, so that four elements need no unrolling. */
export const vectorisedBinary: { readonly [F in BinaryFunction]?: string } = { add: '+', sub: '-', mul: '*', div: '/' };

/** Module text with `fn apply(x: f32, y: f32) -> f32`. */
export function binaryText(fn: BinaryFunction): string {
  const { needs, body } = binaryBodies[fn];
  return `${assemble(needs)}fn apply(x: f32, y: f32) -> f32 {
  ${body('', '')}
}
`;
}

/** Module text with `fn silu(x: f32) -> f32`. */
export function siluText(): string {
  return `${assemble(['isNan', 'sigmoid'])}fn silu(x: f32) -> f32 {
  if (isNan(x)) { return x; }
  return gated(x, sigmoid(x));
}
`;
}

/** A scalar function under a name of its own, for kernels that need several. */
export interface NamedFunction {
  readonly name: string;
  readonly fn: UnaryFunction | BinaryFunction;
  readonly a?: number;
  readonly b?: number;
}

function isBinaryFunction(fn: UnaryFunction | BinaryFunction): fn is BinaryFunction {
  return Object.hasOwn(binaryBodies, fn);
}

/** Module text with `fn NAME(x: f32) -> f32` or `fn NAME(x: f32, y: f32) -> f32` for each; NaN stays NaN as in `unaryText`. Holds `nonFinite` and `isNan`. */
export function namedFunctions(functions: readonly NamedFunction[]): string {
  const texts = functions.map(({ name, fn, a = 0, b = 0 }) => {
    if (isBinaryFunction(fn)) return `fn ${name}(x: f32, y: f32) -> f32 {\n  ${binaryBodies[fn].body('', '')}\n}\n`;
    const body = unaryBodies[fn].body(f32Literal(a), f32Literal(b));
    return `fn ${name}(x: f32) -> f32 {\n  if (isNan(x)) { return x; }\n  ${body}\n}\n`;
  });
  const needs = functions.flatMap(({ fn }) => (isBinaryFunction(fn) ? binaryBodies[fn] : unaryBodies[fn]).needs);
  return assemble(['nonFinite', 'isNan', ...needs]) + texts.join('');
}
