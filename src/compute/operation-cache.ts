import { DisposedError, ShapeError } from '../core/errors.js';
import { GraphBuilder } from '../graph/builder.js';
import type { NodeId } from '../graph/graph.js';
import type { Backend } from '../runtime/backend.js';
import { CompiledGraph } from '../runtime/compiled-graph.js';
import { Held } from './held.js';
import { Turnstile } from './turnstile.js';

/** One operation on host arrays of given shapes. */
export interface Operation {
  /** The operation with its parameters: equal keys and shapes are one compiled graph. */
  readonly key: string;
  readonly shapes: readonly (readonly number[])[];
  build(g: GraphBuilder, inputs: readonly NodeId[]): NodeId;
}

/** A compiled operation, disposed of when it has left the cache and the last run of it has ended. */
interface CachedGraph {
  readonly compiling: Promise<CompiledGraph>;
  readonly hold: Held;
}

/** Runs that compile or are on the device at once; results of more would only take memory. */
const maxInFlight = 16;

/** Compiled operations by key and shapes; the least recently used one leaves when there are too many. */
export class OperationCache {
  readonly #graphs = new Map<string, CachedGraph>();
  readonly #limit: number;
  readonly #turnstile = new Turnstile(maxInFlight);
  #disposed = false;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The operation's f32 result. */
  async run(backend: Backend, operation: Operation, inputs: readonly Float32Array[]): Promise<Float32Array> {
    await this.#turnstile.enter();
    try {
      return await this.#run(backend, operation, inputs);
    } finally {
      this.#turnstile.leave();
    }
  }

  async #run(backend: Backend, operation: Operation, inputs: readonly Float32Array[]): Promise<Float32Array> {
    const { compiling, hold } = this.#graph(backend, operation);
    const done = hold.use();
    try {
      const graph = await compiling;
      const results = await graph.run(Object.fromEntries(inputs.map((data, index) => [`x${index}`, data])));
      const y = results.get('y');
      if (!(y instanceof Float32Array)) throw new ShapeError(`${operation.key} gave no f32 result`);
      return y;
    } finally {
      done();
    }
  }

  /** Runs in flight end as usual; none begins. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    const graphs = [...this.#graphs.values()];
    this.#graphs.clear();
    await Promise.allSettled(graphs.map(({ compiling }) => compiling));
    for (const { hold } of graphs) hold.release();
  }

  #graph(backend: Backend, operation: Operation): CachedGraph {
    if (this.#disposed) throw new DisposedError('the GPU backend');
    const key = `${operation.key} ${operation.shapes.map((shape) => shape.join('x')).join(' ')}`;
    const known = this.#graphs.get(key);
    this.#graphs.delete(key);
    const cached = known ?? cacheable(compileOperation(operation, backend));
    this.#graphs.set(key, cached);
    if (known === undefined)
      cached.compiling.catch(() => {
        // It may have left long ago, and another attempt may have come in its place.
        if (this.#graphs.get(key) === cached) this.#graphs.delete(key);
      });
    for (const [oldest, { hold }] of this.#graphs) {
      if (this.#graphs.size <= this.#limit) break;
      this.#graphs.delete(oldest);
      hold.release();
    }
    return cached;
  }
}

function compileOperation(operation: Operation, backend: Backend): Promise<CompiledGraph> {
  const g = new GraphBuilder();
  const inputs = operation.shapes.map((shape, index) => g.input(`x${index}`, { dtype: 'f32', shape }));
  g.output('y', operation.build(g, inputs));
  return CompiledGraph.compile(g.build(), backend);
}

function cacheable(compilation: Promise<CompiledGraph>): CachedGraph {
  let graph: CompiledGraph | undefined;
  const compiling = compilation.then((made) => {
    graph = made;
    return made;
  });
  return { compiling, hold: new Held(() => graph?.dispose()) };
}
