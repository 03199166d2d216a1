import { elementCount, type Shape, type TensorType } from '../../src/core/tensor.js';
import type { OpDefinition } from '../../src/ops/definition.js';
import type { LeafOp, OpName, OpParams } from '../../src/ops/params.js';
import { stateWord, stateWords } from '../../src/ops/state.js';
import { ops } from '../../src/ops/table.js';

export type Input = readonly [shape: Shape, values: readonly number[], dtype?: TensorType['dtype']];

/** Type rule, then reference, of one operation on plain numbers; what comes out must have the size that the rule says. */
export function reference<K extends Exclude<OpName, LeafOp>>(op: K, params: OpParams[K], ...inputs: readonly Input[]): number[] {
  const definition = ops[op] as unknown as OpDefinition<K>;
  const type = definition.type(
    inputs.map(([shape, , dtype = 'f32']) => ({ shape, dtype })),
    params,
  );
  const data = definition.reference(
    inputs.map(([shape, values]) => ({ shape, data: Float64Array.from(values) })),
    params,
    type,
  );
  if (data.length !== elementCount(type.shape)) throw new Error(`${op} gave ${data.length} values for [${type.shape.join(', ')}]`);
  return [...data];
}

/** A session state whose run begins at `position` with `rows` live rows. */
export function session(position: number, rows: number, maxRows = rows): Input {
  const words = new Array<number>(stateWords(maxRows)).fill(0);
  words[stateWord.position] = position;
  words[stateWord.rows] = rows;
  return [[words.length], words, 'u32'];
}
