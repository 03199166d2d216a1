/** WGSL of a product of one token with f32 activations. */

import { PlanError } from '../../core/errors.js';
import type { BindingKind } from '../../core/kernel.js';
import { type WeightGroup, type WeightReader, weightReader } from '../blocks.js';
import { declareBindings, f32Literal, lines, mainHead, range } from '../template.js';
import { rankFunction } from './choose.js';
import { type FloatProblem, type FloatShape, floatGroups, floatOutputs, stagedVectors, sumsOf } from './product-float-shape.js';

/** More steps than this are looped over: the text would only grow. */
const longestUnroll = 16;

export type Binding = readonly [name: string, element: string, kind: BindingKind];

/** One step along the columns (a number, or an expression of a loop's counter) of the rows from `first` on. */
interface Task {
  readonly step: number | string;
  readonly first: number;
  /** Ends the names of what the task has loaded. */
  readonly id: string;
}

/** A row of a team: the name of its number in the matrix, and who reads it. */
interface Slot {
  readonly row: string;
  readonly reader: WeightReader;
}

/** The text of one kernel: `whole` is the module. */
export class FloatText {
  readonly #problem: FloatProblem;
  readonly #shape: FloatShape;
  readonly #bindings: readonly Binding[];
  readonly #readers: readonly WeightReader[];
  readonly #threads: number;
  readonly #outputs: number;

  constructor(problem: FloatProblem, shape: FloatShape, bindings: readonly Binding[]) {
    this.#problem = problem;
    this.#shape = shape;
    this.#bindings = bindings;
    this.#readers = problem.matrices.map(({ layout }, i) => weightReader(layout, { suffix: `${i}`, halves: shape.halves }));
    this.#threads = shape.lanes * shape.teams;
    this.#outputs = floatOutputs(problem.end, shape);
  }

  whole(total: number): string {
    const { eps, end, depth, best } = this.#problem;
    const { adding, lanes, teams, split, rows, staged } = this.#shape;
    const memory = adding === 'memory';
    const vectors = Math.max(...this.#readers.map(({ chunk }) => stagedVectors(depth, chunk)));
    const helpers = [...new Set(this.#readers.flatMap((reader) => reader.helpers))].join('') + this.#readers.map((reader) => reader.own).join('');
    const arrays = `${staged ? `var<workgroup> staged: array<vec4<f32>, ${vectors}>;\n` : ''}var<workgroup> sums: array<f32, ${sumsOf(end, this.#shape)}>;\n${
      eps === undefined || memory ? '' : `var<workgroup> squareParts: array<f32, ${teams}>;\n`
    }`;
    return `${declareBindings(this.#bindings)}${helpers}${best === undefined ? '' : rankFunction}${arrays}${this.#sumFunction()}${mainHead(
      total,
      this.#threads,
      memory ? '' : '@builtin(subgroup_invocation_id) lane: u32',
    )}${memory ? `  let lane = local % ${lanes}u;\n` : ''}  let team = local / ${lanes}u;
  let part = team % ${split}u;
  let own = team / ${split}u * ${this.#own}u;
  let slot = min(local, ${this.#outputs - 1}u);
  var extra = 0.0;
${eps === undefined ? '' : '  var squares = 0.0;\n'}${lines(rows, (r) => `  var a${r} = 0.0;\n`)}  ${this.#branches((i, first) => this.#products(i, first))}
${memory ? this.#addInMemory() : this.#addInSubgroup()}${eps === undefined ? '' : this.#norm()}${this.#end()}}
`;
  }

  /** Rows of a team in its (first) matrix. */
  get #own(): number {
    return this.#problem.end === 'gated' ? this.#shape.rows / 2 : this.#shape.rows;
  }

  /** A statement for each matrix, chosen by the workgroup; `first` is the matrix's first workgroup. */
  #branches(text: (index: number, first: number) => string): string {
    const groups = floatGroups(this.#problem, this.#shape);
    let first = 0;
    return groups
      .map((count, i) => {
        const branch = `{\n${text(i, first)}  }`;
        first += count;
        return i === groups.length - 1 ? branch : `if (group < ${first}u) ${branch} else `;
      })
      .join('');
  }

  /** One matrix (or a gated pair): what is added at the end, loads ahead, staging, products. */
  #products(index: number, firstGroup: number): string {
    const { depth, matrices, end } = this.#problem;
    const { lanes, split, rows, together, ahead } = this.#shape;
    const matrix = matrices[index];
    const reader = this.#readers[index];
    if (matrix === undefined || reader === undefined) throw new PlanError('a product needs a matrix for every part of it');
    const slots = range(rows).map((r): Slot => {
      const up = end === 'gated' && r >= this.#own;
      return { row: `row${r % this.#own}`, reader: up ? (this.#readers[1] ?? reader) : reader };
    });
    const most = matrix.layout.rows - 1;
    const base = `(group - ${firstGroup}u) * ${this.#outputs}u`;
    const extras = [
      ...(matrix.biasStart === undefined ? [] : [`bias${index}[${matrix.biasStart}u + place]`]),
      ...(end === 'residual' ? [`residual[${matrix.start}u + place]`] : []),
    ];
    const head = `${extras.length === 0 ? '' : `    let place = min(${base} + slot, ${most}u);\n    extra = ${extras.join(' + ')};\n`}${lines(
      this.#own,
      (r) => `    let row${r} = min(${base} + own + ${r}u, ${most}u);\n`,
    )}`;
    const chunks = Math.ceil(depth / reader.chunk);
    const steps = Math.ceil(chunks / (lanes * split));
    const turns = range(rows / together).map((turn) => turn * together);
    const loads = (task: Task): string => this.#loads(task, slots, chunks);
    const math = (task: Task): string => this.#math(task, slots, reader.chunk, chunks);
    const stage = this.#stage(reader.chunk);
    if (ahead === 0) {
      const task = (first: number): Task => ({ step: 'i', first, id: `${first}` });
      return `${head}${stage}${turns.map((first) => `    for (var i = 0u; i < ${steps}u; i++) {\n${loads(task(first))}${math(task(first))}    }\n`).join('')}`;
    }
    if (steps * turns.length <= longestUnroll) {
      const tasks = turns.flatMap((first) => range(steps).map((step): Task => ({ step, first, id: `${first}_${step}` })));
      const load = (task: Task | undefined): string => (task === undefined ? '' : loads(task));
      return `${head}${tasks.slice(0, ahead).map(load).join('')}${stage}${tasks.map((task, i) => `${load(tasks[i + ahead])}${math(task)}`).join('')}`;
    }
    return `${head}${turns.map((first, i) => this.#looped(first, steps, { loads, math }, i === 0 ? stage : '')).join('')}`;
  }

  /** The steps of some rows: the first `ahead` around the staging, then rounds of as many in a loop, then the rest, which alone may reach beyond a row. */
  #looped(first: number, steps: number, { loads, math }: { loads(task: Task): string; math(task: Task): string }, stage: string): string {
    const { ahead } = this.#shape;
    const round = (from: number, count: number, start = ''): string => {
      const tasks = range(count).map((u): Task => ({ step: start === '' ? from + u : `(${start} + ${u}u)`, first, id: `${first}_${from + u}` }));
      return tasks.map(loads).join('') + (from === 0 ? stage : '') + tasks.map(math).join('');
    };
    const early = Math.min(ahead, steps - 1);
    const rounds = Math.floor((steps - 1 - early) / ahead);
    const rest = early + rounds * ahead;
    const loop = rounds === 0 ? '' : `    for (var i = 0u; i < ${rounds}u; i++) {\n${round(early, ahead, `i * ${ahead}u + ${early}u`)}    }\n`;
    return `${round(0, early)}${loop}${round(rest, steps - rest)}`;
  }

  /** The lanes of all teams that share a row step along it side by side. */
  #chunk({ step }: Task): string {
    const { lanes, split } = this.#shape;
    const stride = lanes * split;
    return `${typeof step === 'number' ? `${step * stride}u` : `${step} * ${stride}u`}${split === 1 ? '' : ` + part * ${lanes}u`} + lane`;
  }

  #isGuarded({ step }: Task, chunks: number): boolean {
    const { lanes, split, ahead } = this.#shape;
    const stride = lanes * split;
    return ahead === 0 ? chunks % stride !== 0 : typeof step === 'number' && (step + 1) * stride > chunks;
  }

  #loads(task: Task, slots: readonly Slot[], chunks: number): string {
    const { id, first } = task;
    const chunk = this.#chunk(task);
    const at = this.#isGuarded(task, chunks) ? `let t${id} = ${chunk}; let c${id} = min(t${id}, ${chunks - 1}u);` : `let c${id} = ${chunk};`;
    const rows = slots.slice(first, first + this.#shape.together);
    return `    ${at}\n${rows.map(({ row, reader }, i) => `    ${reader.load(`${i}_${id}`, row, `c${id}`)}\n`).join('')}`;
  }

  #math(task: Task, slots: readonly Slot[], chunk: number, chunks: number): string {
    const { id, first } = task;
    const { depth, eps } = this.#problem;
    const { together, staged } = this.#shape;
    const quads = chunk / 4;
    const value = (j: number): string => {
      if (staged) return `staged[${j * (chunks + 1)}u + c${id}]`;
      const at = `c${id} * ${quads}u + ${j}u`;
      const read = (at: string): string => `x[${at}]${eps === undefined ? '' : ` * gain[${at}]`}`;
      return depth % chunk === 0 ? read(at) : `select(vec4<f32>(0.0), ${read(`min(${at}, ${depth / 4 - 1}u)`)}, ${at} < ${depth / 4}u)`;
    };
    const xs = lines(quads, (j) => `      let x${j} = ${value(j)};\n`);
    const { totals, sums } = chunkSum(slots.slice(first, first + together).map(({ reader }, i) => reader.groups(`${i}_${id}`)));
    const guarded = this.#isGuarded(task, chunks);
    const add = sums.map((sum, i) => `      a${first + i} += ${guarded ? `select(0.0, ${sum}, t${id} < ${chunks}u)` : sum};\n`);
    return `    {\n${xs}${totals}${add.join('')}    }\n`;
  }

  /** Activations into workgroup memory, times the gain, and the sum of their squares. */
  #stage(chunk: number): string {
    const { depth, eps } = this.#problem;
    const { staged, adding, ahead } = this.#shape;
    if (!staged && eps === undefined) return '';
    const quads = chunk / 4;
    const chunks = Math.ceil(depth / chunk);
    const present = depth / 4;
    const whole = staged ? chunks * quads : present;
    const count = Math.ceil(whole / this.#threads);
    const fetch = (i: number | string, guarded: boolean): string => {
      const at = typeof i === 'number' ? `${i * this.#threads}u` : `${i} * ${this.#threads}u`;
      const index = guarded ? `min(s${i}, ${present - 1}u)` : `s${i}`;
      const value = guarded ? `select(vec4<f32>(0.0), x[${index}], s${i} < ${present}u)` : `x[${index}]`;
      return `    let s${i} = ${at} + local; let v${i} = ${value};${eps !== undefined && staged ? ` let g${i} = gain[${index}];` : ''}\n`;
    };
    const keep = (i: number | string, guarded: boolean): string => {
      const place = quads === 1 ? `s${i}` : `(s${i} % ${quads}u) * ${chunks + 1}u + s${i} / ${quads}u`;
      const write = `staged[${place}] = v${i}${eps === undefined ? '' : ` * g${i}`};`;
      const stored = !staged ? '' : guarded ? `if (s${i} < ${whole}u) { ${write} }` : write;
      return `    ${eps === undefined ? '' : `squares += dot(v${i}, v${i}); `}${stored}\n`;
    };
    const beyond = (i: number): boolean => (i + 1) * this.#threads > present;
    const copies =
      ahead === 0
        ? `    for (var i = 0u; i < ${count}u; i++) {\n${fetch('i', beyond(count - 1))}${keep('i', beyond(count - 1))}    }\n`
        : lines(count, (i) => fetch(i, beyond(i))) + lines(count, (i) => keep(i, beyond(i)));
    const parts =
      eps === undefined || adding === 'memory' ? '' : '    let teamSquares = subgroupAdd(squares);\n    if (lane == 0u) { squareParts[team] = teamSquares; }\n';
    return `${copies}${parts}${staged ? '    workgroupBarrier();\n' : ''}`;
  }

  /** Sums of outputs, those of the second matrix after the first's where gated, one for each team that shares a row. */
  #addInSubgroup(): string {
    const { rows, split } = this.#shape;
    const second = (r: number): number => (r >= this.#own ? this.#outputs - this.#own : 0);
    const store = (r: number): string => `    sums[(own + ${r + second(r)}u) * ${split}u + part] = a${r};\n`;
    return `${lines(rows, (r) => `  a${r} = subgroupAdd(a${r});\n`)}  if (lane == 0u) {\n${lines(rows, store)}  }\n  workgroupBarrier();\n`;
  }

  /** One stripe of all threads for each row, and one for the squares; the first lane of each team ends with the sums. */
  #addInMemory(): string {
    const { rows, lanes } = this.#shape;
    const names = [...range(rows).map((r) => `a${r}`), ...(this.#problem.eps === undefined ? [] : ['squares'])];
    const put = names.map((name, i) => `  sums[${i * this.#threads}u + local] = ${name};\n`).join('');
    const levels = range(Math.log2(lanes)).map((level) => {
      const half = lanes >> (level + 1);
      const add = `sums[s * ${this.#threads}u + local] += sums[s * ${this.#threads}u + local + ${half}u];`;
      return `  workgroupBarrier();\n  if (lane < ${half}u) {\n    for (var s = 0u; s < ${names.length}u; s++) { ${add} }\n  }\n`;
    });
    return `${put}${levels.join('')}  workgroupBarrier();\n`;
  }

  /** `fn sumOf(slot, matrix)`: the sum of an output of the workgroup. */
  #sumFunction(): string {
    const { adding, split, lanes } = this.#shape;
    const text =
      adding === 'memory'
        ? `sums[(matrix * ${this.#own}u + slot % ${this.#own}u) * ${this.#threads}u + slot / ${this.#own}u * ${lanes}u]`
        : range(split)
            .map((s) => `sums[(matrix * ${this.#outputs}u + slot) * ${split}u + ${s}u]`)
            .join(' + ');
    return `fn sumOf(slot: u32, matrix: u32) -> f32 { return ${text}; }\n`;
  }

  #norm(): string {
    const { depth, eps = 0 } = this.#problem;
    const { adding, teams, rows, lanes } = this.#shape;
    const part = (t: number): string => (adding === 'memory' ? `sums[${rows * this.#threads + t * lanes}u]` : `squareParts[${t}u]`);
    return `  let norm = inverseSqrt((${range(teams).map(part).join(' + ')}) * ${f32Literal(1 / depth)} + ${f32Literal(eps)});\n`;
  }

  #end(): string {
    const { matrices, end, plain, best, eps } = this.#problem;
    const norm = eps === undefined ? '' : ' * norm';
    const result = end === 'gated' ? 'first / (1.0 + exp(-first)) * second' : 'first + extra';
    const values = `    let first = sumOf(slot, 0u)${norm};\n${end === 'gated' ? `    let second = sumOf(slot, 1u)${norm};\n` : ''}`;
    const store = this.#branches((i, first) => {
      const matrix = matrices[i];
      return `    let row = (group - ${first}u) * ${this.#outputs}u + local;\n    if (row < ${matrix?.layout.rows ?? 0}u) { y[${matrix?.start ?? 0}u + row] = ${result}; }\n`;
    });
    const stored = plain ? `  if (local < ${this.#outputs}u) {\n${values}    ${store}\n  }\n` : '';
    return best === undefined ? stored : stored + this.#best(best, norm);
  }

  /** The best (rank, index) of the workgroup, lowest index first where several are equal. */
  #best(firstPair: number, norm: string): string {
    const matrix = this.#problem.matrices[0];
    return `  if (local == 0u) {
    let row = group * ${this.#outputs}u;
    var top = vec2<u32>(0u, ${matrix?.start ?? 0}u + row);
    for (var o = 0u; o < min(${this.#outputs}u, ${matrix?.layout.rows ?? 0}u - row); o++) {
      let value = rank(sumOf(o, 0u)${norm});
      if (value > top.x) { top = vec2<u32>(value, ${matrix?.start ?? 0}u + row + o); }
    }
    bests[${firstPair}u + group] = top;
  }
`;
  }
}

/**
 * An expression for each row's chunk, from its groups. Scales multiply sums of products; minimums multiply sums of activations, which rows share: `totals` are the statements that declare those.
 */
function chunkSum(rows: readonly (readonly WeightGroup[])[]): { readonly totals: string; readonly sums: readonly string[] } {
  const totals = new Map<string, string>();
  const totalOf = (first: number, count: number): string => {
    const name = `total${first}_${count}`;
    const all = Array.from({ length: count }, (_, j) => `x${first + j}`).join(' + ');
    totals.set(name, `      let ${name} = dot(${all}, vec4<f32>(1.0));\n`);
    return name;
  };
  const sums = rows.map((groups) => {
    let next = 0;
    const parts = groups.map(({ quads, scale, minimum }) => {
      const first = next;
      next += quads.length;
      const sum = quads.map((quad, j) => `dot(${quad}, x${first + j})`).join(' + ');
      const scaled = scale === undefined ? sum : `${scale} * (${sum})`;
      return minimum === undefined ? scaled : `${scaled} - ${minimum} * ${totalOf(first, quads.length)}`;
    });
    return parts.join(' + ');
  });
  return { totals: [...totals.values()].join(''), sums };
}
