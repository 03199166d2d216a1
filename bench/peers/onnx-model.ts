/** ONNX models of chained operations, written as protocol buffers (onnx.proto3, IR version 8, operators of set 13). */

import { inputsOf, shapesOf, type Workload } from './workloads.js';

type Bytes = Uint8Array;

function joined(parts: readonly Bytes[]): Bytes {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function varint(value: number): Bytes {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Uint8Array.from([...bytes, rest]);
    bytes.push((rest % 128) | 128);
  }
}

const number = (field: number, value: number): Bytes => joined([varint(field << 3), varint(value)]);
const block = (field: number, content: Bytes): Bytes => joined([varint((field << 3) | 2), varint(content.length), content]);
const text = (field: number, value: string): Bytes => block(field, new TextEncoder().encode(value));

const floatType = 1;
const int64Type = 7;
const intsAttribute = 7;
const intAttribute = 2;

/** TensorProto: dims 1, data_type 2, name 8, raw_data 9. */
function tensor(name: string, type: number, shape: readonly number[], data: Bytes): Bytes {
  return joined([...shape.map((size) => number(1, size)), number(2, type), text(8, name), block(9, data)]);
}

/** ValueInfoProto: name 1, type 2; TypeProto.tensor_type 1: elem_type 1, shape 2, dim 1, dim_value 1. */
function floats(name: string, shape: readonly number[]): Bytes {
  const dims = joined(shape.map((size) => block(1, number(1, size))));
  return joined([text(1, name), block(2, block(1, joined([number(1, floatType), block(2, dims)])))]);
}

/** AttributeProto: name 1, i 3, ints 8, type 20. */
function attribute(name: string, value: number | readonly number[]): Bytes {
  const content = typeof value === 'number' ? [number(3, value), number(20, intAttribute)] : [...value.map((v) => number(8, v)), number(20, intsAttribute)];
  return joined([text(1, name), ...content]);
}

/** NodeProto: input 1, output 2, op_type 4, attribute 5. */
function node(op: string, inputs: readonly string[], output: string, attributes: Record<string, number | readonly number[]> = {}): Bytes {
  const all = Object.entries(attributes).map(([name, value]) => block(5, attribute(name, value)));
  return joined([...inputs.map((name) => text(1, name)), text(2, output), text(4, op), ...all]);
}

/** The nodes of one operation, from x to y. */
function operation(work: Workload, x: string, y: string): readonly Bytes[] {
  switch (work.op) {
    case 'matmul':
      return [node('MatMul', [x, 'b'], y)];
    case 'add':
      return [node('Add', [x, 'b'], y)];
    // A chain needs a result of the input's size: the sum's own time is this one's without an addition's.
    case 'sum':
      return [node('ReduceSum', [x], `${y} sum`, { keepdims: 1 }), node('Add', [x, `${y} sum`], y)];
    case 'softmax':
      return [node('Softmax', [x], y, { axis: 1 })];
    case 'conv2d':
      return [node('Conv', [x, 'b'], y, { pads: Array<number>(4).fill(Math.floor(work.kernel / 2)) })];
  }
}

/** `length` operations in a chain, and the first element of the last one's result as the output y. The input "one" keeps the chain from being computed when the model is loaded. */
export function chainModel(work: Workload, length: number): Bytes {
  const values = inputsOf(work);
  const shapes = shapesOf(work);
  const weights = values.map((data, i) => tensor(i === 0 ? 'a' : 'b', floatType, shapes[i] ?? [], new Uint8Array(data.buffer)));
  const whole = (name: string, value: bigint): Bytes => tensor(name, int64Type, [1], new Uint8Array(BigInt64Array.of(value).buffer));
  const nodes = [
    node('Mul', ['a', 'one'], 'x0'),
    ...Array.from({ length }, (_, i) => operation(work, `x${i}`, `x${i + 1}`)).flat(),
    node('Reshape', [`x${length}`, 'flat'], 'all'),
    node('Slice', ['all', 'start', 'end'], 'y'),
  ];
  const constants = [...weights, whole('flat', -1n), whole('start', 0n), whole('end', 1n)];
  // GraphProto: node 1, name 2, initializer 5, input 11, output 12. ModelProto: ir_version 1, graph 7, opset_import 8 (version 2).
  const graph = joined([
    ...nodes.map((content) => block(1, content)),
    text(2, work.name),
    ...constants.map((content) => block(5, content)),
    block(11, floats('one', [1])),
    block(12, floats('y', [1])),
  ]);
  return joined([number(1, 8), block(7, graph), block(8, number(2, 13))]);
}
