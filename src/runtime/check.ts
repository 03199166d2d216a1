import { GraphBuilder } from '../graph/builder.js';
import { type Evaluation, evaluate } from '../graph/evaluate.js';
import type { Graph } from '../graph/graph.js';
import { decodeBytes, type OpCase, type Tolerance } from '../ops/case.js';
import { updatedInput, updatedInputs } from '../ops/table.js';
import type { Backend } from './backend.js';
import { CompiledGraph, type TensorData } from './compiled-graph.js';

/** How far a backend's answer to a case is from the reference. */
export interface CaseResult {
  readonly name: string;
  readonly ok: boolean;
  /** Largest error as a multiple of what the case accepts: at most 1 passes. */
  readonly worst: number;
  /** The element with that error, for people: "[17]: 1.5 instead of 2". */
  readonly where: string;
}

/** Runs one case on a backend and compares it with the f64 reference. */
export async function checkCase(backend: Backend, opCase: OpCase): Promise<CaseResult> {
  const graph = caseGraph(opCase);
  const compiled = await CompiledGraph.compile(graph, backend, { rewrite: false });
  try {
    const inputs: Record<string, TensorData> = {};
    for (const [index, input] of opCase.inputs.entries()) {
      if (input.role === 'input') inputs[leafName(index)] = input.bytes;
      if (input.role === 'param') await compiled.setParam(leafName(index), input.bytes);
      if (input.role === 'state') await compiled.setState(leafName(index), input.bytes);
    }
    const outputs = await compiled.run(inputs);
    const { outputs: wantedOutputs, states } = wanted(graph, opCase);
    const results: CaseResult[] = [];
    const y = outputs.get('y');
    if (y !== undefined) results.push(compare(opCase, wantedOutputs.get('y')?.data ?? new Float64Array(), y, backend.caseRounding(opCase)));
    for (const index of updatedInputs(opCase.op)) {
      const name = leafName(index);
      const type = opCase.inputs[index]?.type ?? { dtype: 'f32', shape: [0] };
      results.push(compare(opCase, states.get(name) ?? new Float64Array(), decodeBytes(type, await compiled.readState(name)), undefined));
    }
    return results.reduce((worst, result) => (result.worst > worst.worst ? result : worst));
  } finally {
    compiled.dispose();
  }
}

function leafName(index: number): string {
  return `input ${index}`;
}

function caseGraph(opCase: OpCase): Graph {
  const g = new GraphBuilder();
  const inputs = opCase.inputs.map(({ role, type, bytes }, index) => {
    const name = leafName(index);
    if (role === 'constant') return g.constant([...decodeBytes(type, bytes)], type, name);
    return role === 'input' ? g.input(name, type) : role === 'param' ? g.param(name, type) : g.state(name, type);
  });
  const y = g.add(opCase.op, opCase.params, inputs, 'y');
  // The new version of a state is read as that state.
  if (updatedInput(opCase.op) === undefined) g.output('y', y);
  return g.build();
}

function wanted(graph: Graph, opCase: OpCase): Evaluation {
  const values = new Map(opCase.inputs.map((input, index) => [leafName(index), decodeBytes(input.type, input.bytes)]));
  return evaluate(graph, { inputs: values, params: values, states: values });
}

function compare(opCase: OpCase, reference: Float64Array, got: ArrayLike<number>, rounding: Float64Array | undefined): CaseResult {
  const rowSize = reference.length / (reference.length === 0 ? 1 : (caseRows(opCase) ?? reference.length));
  const count = opCase.liveRows === undefined ? reference.length : opCase.liveRows * rowSize;
  const scale = reference.subarray(0, count).reduce((max, value) => (Number.isFinite(value) ? Math.max(max, Math.abs(value)) : max), 0);
  let worst = 0;
  let where = '';
  for (let i = 0; i < count; i++) {
    const [want, have] = [reference[i] ?? Number.NaN, got[i] ?? Number.NaN];
    const error = errorOf(want, have, acceptedError(opCase.tolerance, want, scale) + (rounding?.[i] ?? 0));
    if (error > worst) [worst, where] = [error, `[${i}]: ${have} instead of ${want}`];
  }
  return { name: opCase.name, ok: worst <= 1, worst, where };
}

function caseRows(opCase: OpCase): number | undefined {
  return opCase.inputs.find((input) => input.role === 'input')?.type.shape[0];
}

function acceptedError(tolerance: Tolerance, want: number, scale: number): number {
  return (tolerance.absolute ?? 0) + (tolerance.relative ?? 0) * Math.abs(want) + (tolerance.relativeToMax ?? 0) * scale;
}

/** As a multiple of the accepted error. Infinities and NaN must be met exactly. */
function errorOf(want: number, have: number, accepted: number): number {
  if (want === have || Object.is(want, have)) return 0;
  if (!Number.isFinite(want) || !Number.isFinite(have)) return Number.POSITIVE_INFINITY;
  if (!(accepted >= 0)) return Number.POSITIVE_INFINITY;
  return Math.abs(have - want) / accepted;
}
