/**
 * A small WebAssembly assembler. Every instruction is a function from typed operands to typed code, so kernels are nested expressions that plain TypeScript
 * specialises: loops unroll and shapes become immediates. Opcodes: WebAssembly core specification 2.0, section 5.4.
 */

export type ValueType = 'i32' | 'f32' | 'v128';
type Bytes = number | readonly Bytes[];

/** Encoded instructions that leave one value of type T on the stack, or nothing. */
export interface Code<T extends ValueType | 'none'> {
  readonly type: T;
  readonly bytes: Bytes;
}

export type I32 = Code<'i32'>;
export type F32 = Code<'f32'>;
export type V128 = Code<'v128'>;
export type Statement = Code<'none'>;

const valueTypes: Readonly<Record<ValueType, number>> = { i32: 0x7f, f32: 0x7d, v128: 0x7b };

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value | 0;
  while (rest < -64 || rest > 63) {
    bytes.push((rest & 127) | 128);
    rest >>= 7;
  }
  return [...bytes, rest & 127];
}

const code = <T extends ValueType | 'none'>(type: T, ...bytes: Bytes[]): Code<T> => ({ type, bytes });
const simd = (opcode: number): Bytes => [0xfd, ...unsigned(opcode)];

const unary =
  <A extends ValueType, T extends ValueType>(type: T, opcode: Bytes) =>
  (a: Code<A>): Code<T> =>
    code(type, a.bytes, opcode);
const binary =
  <T extends ValueType>(type: T, opcode: Bytes) =>
  (a: Code<T>, b: Code<T>): Code<T> =>
    code(type, a.bytes, b.bytes, opcode);
/** Shifts of every lane by one scalar count. */
const shift =
  (opcode: number) =>
  (a: V128, count: number): V128 =>
    count === 0 ? a : code('v128', a.bytes, i32.const(count).bytes, simd(opcode));
/** `align` is log2 of the natural alignment (a hint only), `offset` the immediate byte offset. */
const load =
  <T extends ValueType>(type: T, opcode: Bytes, align: number) =>
  (address: I32, offset = 0): Code<T> =>
    code(type, address.bytes, opcode, align, unsigned(offset));
const store =
  <T extends ValueType>(opcode: Bytes, align: number) =>
  (address: I32, value: Code<T>, offset = 0): Statement =>
    code('none', address.bytes, value.bytes, opcode, align, unsigned(offset));
const storeLane =
  (opcode: number, align: number) =>
  (address: I32, value: V128, lane: number, offset = 0): Statement =>
    code('none', address.bytes, value.bytes, simd(opcode), align, unsigned(offset), lane);

export const i32 = {
  const: (value: number): I32 => code('i32', 0x41, signed(value)),
  load: load('i32', 0x28, 2),
  load16s: load('i32', 0x2e, 1),
  load16u: load('i32', 0x2f, 1),
  store: store<'i32'>(0x36, 2),
  add: binary('i32', 0x6a),
  sub: binary('i32', 0x6b),
  mul: binary('i32', 0x6c),
  and: binary('i32', 0x71),
  shl: binary('i32', 0x74),
  shr: binary('i32', 0x76),
  ltU: binary('i32', 0x49),
};

export const f32 = {
  const: (value: number): F32 => code('f32', 0x43, [...new Uint8Array(new Float32Array([value]).buffer)]),
  load: load('f32', 0x2a, 2),
  store: store<'f32'>(0x38, 2),
  add: binary('f32', 0x92),
  mul: binary('f32', 0x94),
  div: binary('f32', 0x95),
};

export const v128 = {
  load: load('v128', simd(0x00), 4),
  load8x8u: load('v128', simd(0x02), 3),
  load16x4s: load('v128', simd(0x03), 3),
  load16x4u: load('v128', simd(0x04), 3),
  load32splat: load('v128', simd(0x09), 2),
  load32zero: load('v128', simd(0x5c), 2),
  store: store<'v128'>(simd(0x0b), 4),
  store32lane: storeLane(0x5a, 2),
  store64lane: storeLane(0x5b, 3),
  const: (lanes: Int32Array | Uint32Array | Float32Array | Uint16Array | Uint8Array): V128 =>
    code('v128', simd(0x0c), [...new Uint8Array(lanes.buffer, lanes.byteOffset, 16)]),
  /** Bytes of the pair (a, b): 0 to 15 are a's, 16 to 31 b's. */
  shuffle: (a: V128, b: V128, lanes: readonly number[]): V128 => code('v128', a.bytes, b.bytes, simd(0x0d), lanes),
  and: binary('v128', simd(0x4e)),
  /** a and not b. */
  andNot: binary('v128', simd(0x4f)),
  or: binary('v128', simd(0x50)),
  /** Bits of `a` where the mask is set, else of `b`. */
  select: (a: V128, b: V128, mask: V128): V128 => code('v128', a.bytes, b.bytes, mask.bytes, simd(0x52)),
};

export const i16x8 = {
  shl: shift(0x8b),
  shrU: shift(0x8d),
  add: binary('v128', simd(0x8e)),
  /** Two i32x4 vectors to one i16x8, saturating. */
  narrow: binary('v128', simd(0x85)),
  extendLowS: unary<'v128', 'v128'>('v128', simd(0x87)),
  extendLowU: unary<'v128', 'v128'>('v128', simd(0x89)),
};

export const i32x4 = {
  splat: unary<'i32', 'v128'>('v128', simd(0x11)),
  ltS: binary('v128', simd(0x39)),
  neg: unary<'v128', 'v128'>('v128', simd(0xa1)),
  extendLowS: unary<'v128', 'v128'>('v128', simd(0xa7)),
  extendLowU: unary<'v128', 'v128'>('v128', simd(0xa9)),
  shl: shift(0xab),
  shrS: shift(0xac),
  add: binary('v128', simd(0xae)),
  sub: binary('v128', simd(0xb1)),
  /** Lane i: a[2i] b[2i] + a[2i+1] b[2i+1] over i16 lanes. */
  dot: binary('v128', simd(0xba)),
  truncate: unary<'v128', 'v128'>('v128', simd(0xf8)),
};

export const f32x4 = {
  const: (value: number): V128 => v128.const(new Float32Array(4).fill(value)),
  splat: unary<'f32', 'v128'>('v128', simd(0x13)),
  extract: (a: V128, lane: number): F32 => code('f32', a.bytes, simd(0x1f), lane),
  lt: binary('v128', simd(0x43)),
  gt: binary('v128', simd(0x44)),
  nearest: unary<'v128', 'v128'>('v128', simd(0x6a)),
  abs: unary<'v128', 'v128'>('v128', simd(0xe0)),
  neg: unary<'v128', 'v128'>('v128', simd(0xe1)),
  add: binary('v128', simd(0xe4)),
  sub: binary('v128', simd(0xe5)),
  mul: binary('v128', simd(0xe6)),
  div: binary('v128', simd(0xe7)),
  /** NaN in either operand gives NaN. */
  max: binary('v128', simd(0xe9)),
  convert: unary<'v128', 'v128'>('v128', simd(0xfa)),
};

/** a + n, without an instruction for n = 0. */
export function plus(a: I32, n: number): I32 {
  return n === 0 ? a : i32.add(a, i32.const(n));
}

/** Statements one after another. */
export function sequence(...statements: readonly (Statement | readonly Statement[])[]): Statement {
  return code('none', ...statements.flat().map((statement) => statement.bytes));
}

export interface Local<T extends ValueType> {
  readonly get: Code<T>;
  set(value: Code<T>): Statement;
  /** Sets it, and is the value. */
  tee(value: Code<T>): Code<T>;
}

/** One function under construction: parameters first, then locals. */
export class FunctionBuilder {
  readonly #types: ValueType[] = [];
  readonly #parameters: number;
  readonly #prologue: Statement[] = [];

  constructor(parameters: number) {
    this.#parameters = parameters;
  }

  /** Parameter `index`; all parameters are i32. */
  parameter(index: number): Local<'i32'> {
    return this.#at('i32', index);
  }

  local<T extends ValueType>(type: T): Local<T> {
    this.#types.push(type);
    return this.#at(type, this.#parameters + this.#types.length - 1);
  }

  locals<T extends ValueType>(type: T, count: number): Local<T>[] {
    return Array.from({ length: count }, () => this.local(type));
  }

  /** A value computed once at the function's start: V8 materialises a v128.const anew wherever it stands, loops included. */
  once(value: V128): V128 {
    const local = this.local('v128');
    this.#prologue.push(local.set(value));
    return local.get;
  }

  /** Runs `body` `count` times; `count` must be at least 1. */
  repeat(count: I32, ...body: readonly (Statement | readonly Statement[])[]): Statement {
    const left = this.local('i32');
    const next = i32.sub(left.get, i32.const(1));
    return sequence(left.set(count), code('none', 0x03, 0x40, sequence(...body).bytes, left.set(next).bytes, left.get.bytes, 0x0d, 0, 0x0b));
  }

  /** Runs `body` where `condition` is not zero. */
  when(condition: I32, ...body: readonly (Statement | readonly Statement[])[]): Statement {
    return code('none', condition.bytes, 0x04, 0x40, sequence(...body).bytes, 0x0b);
  }

  /** @internal The encoded body: locals, prologue, statements. */
  encode(body: Statement): number[] {
    const locals = this.#types.flatMap((type) => [1, valueTypes[type]]);
    const inner = [...unsigned(this.#types.length), ...locals];
    flatten(sequence(this.#prologue, body).bytes, inner);
    inner.push(0x0b);
    return [...unsigned(inner.length), ...inner];
  }

  #at<T extends ValueType>(type: T, index: number): Local<T> {
    const n = unsigned(index);
    return { get: code(type, 0x20, n), set: (value) => code('none', value.bytes, 0x21, n), tee: (value) => code(type, value.bytes, 0x22, n) };
  }
}

function flatten(bytes: Bytes, into: number[]): void {
  if (typeof bytes === 'number') into.push(bytes);
  else for (const part of bytes) flatten(part, into);
}

/** A function of a module: i32 parameters (byte addresses and counts), no result. */
export interface WasmProgram {
  /** Family and every structural parameter: equal keys mean equal code. */
  readonly key: string;
  readonly parameters: number;
  body(builder: FunctionBuilder): Statement;
}

/** The bytes of a module that exports `programs` by position ("0", "1", ...) and imports its memory as `env.memory`. */
export function assembleModule(programs: readonly WasmProgram[]): Uint8Array<ArrayBuffer> {
  const vector = (items: readonly (readonly number[])[]): number[] => [...unsigned(items.length), ...items.flat()];
  const section = (id: number, content: readonly number[]): number[] => [id, ...unsigned(content.length), ...content];
  const text = (value: string): number[] => [...unsigned(value.length), ...new TextEncoder().encode(value)];
  const types = programs.map(({ parameters }) => [0x60, ...vector(Array.from({ length: parameters }, () => [valueTypes.i32])), 0]);
  const bodies = programs.map(({ parameters, body }) => {
    const builder = new FunctionBuilder(parameters);
    return builder.encode(body(builder));
  });
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector(types)),
    ...section(2, vector([[...text('env'), ...text('memory'), 2, 0, 1]])),
    ...section(3, vector(types.map((_, i) => unsigned(i)))),
    ...section(7, vector(programs.map((_, i) => [...text(String(i)), 0, ...unsigned(i)]))),
    ...section(10, vector(bodies)),
  ]);
}
