/** Work spread over several devices, any of which may be lost on the way. No WebGPU in here: what a worker is, the pool decides. */

import { AbortedError, DeviceLostError } from '../core/errors.js';

export interface PoolWorker<Device> {
  readonly device: Device;
  /** Position in the pool. */
  readonly index: number;
  /** Items and leases that it has now. */
  busy: number;
  /** Items and leases that it had in all: between workers equally busy, the one that had fewer is taken. */
  served: number;
  /** Why it takes no more work; undefined while it does. */
  loss(): Error | undefined;
  /** Resolves when a loss that is under way can be seen by `loss`. */
  settled(): Promise<void>;
}

export interface MapContext {
  /** Position of the item. */
  readonly index: number;
  /** Position of the device in the pool. */
  readonly deviceIndex: number;
  /** The caller's signal, to stop in the middle of an item. */
  readonly signal: AbortSignal | undefined;
}

export type MapFunction<Device, Item, Result> = (item: Item, device: Device, context: MapContext) => Promise<Result> | Result;

export interface MapRunOptions {
  readonly signal: AbortSignal | undefined;
  /** Items that one device works on at a time. */
  readonly perDevice: number;
}

/** The worker with the least to do, or undefined where none takes work. */
export function leastBusy<W extends PoolWorker<unknown>>(workers: readonly W[]): W | undefined {
  return workers
    .filter((worker) => worker.loss() === undefined)
    .reduce<W | undefined>((best, worker) => {
      if (best === undefined || worker.busy < best.busy) return worker;
      return worker.busy === best.busy && worker.served < best.served ? worker : best;
    }, undefined);
}

export class MapRun<Device, Item, Result> {
  readonly #workers: readonly PoolWorker<Device>[];
  readonly #items: readonly Item[];
  readonly #apply: MapFunction<Device, Item, Result>;
  readonly #options: MapRunOptions;
  readonly #results: Result[];
  /** Positions of the items to do, the next one last. */
  readonly #waiting: number[];
  /** Items in work, per worker of this run; a worker that was lost is no longer in it. */
  readonly #working: Map<PoolWorker<Device>, number>;
  #running = 0;
  #failure: { readonly error: unknown } | undefined;
  #lastLoss: Error | undefined;
  #finish: () => void = () => undefined;

  constructor(workers: readonly PoolWorker<Device>[], items: readonly Item[], apply: MapFunction<Device, Item, Result>, options: MapRunOptions) {
    this.#workers = workers;
    this.#items = items;
    this.#apply = apply;
    this.#options = options;
    this.#results = new Array<Result>(items.length);
    this.#waiting = items.map((_, index) => items.length - 1 - index);
    this.#working = new Map(workers.map((worker) => [worker, 0]));
  }

  /** Results in the order of the items. Settles when no item is in work any more, after a failure too. */
  async run(): Promise<Result[]> {
    const { signal } = this.#options;
    const abort = (): void => this.#fail(new AbortedError('a map over a pool of devices', signal?.reason));
    if (signal?.aborted === true) abort();
    signal?.addEventListener('abort', abort);
    try {
      await new Promise<void>((resolve) => {
        this.#finish = resolve;
        this.#advance();
      });
    } finally {
      signal?.removeEventListener('abort', abort);
    }
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#results;
  }

  /** Hands out items while there are both items and idle devices; ends the run where nothing is in work and nothing can be. */
  #advance(): void {
    while (this.#failure === undefined && this.#waiting.length > 0) {
      const worker = leastBusy(this.#workers.filter((entry) => (this.#working.get(entry) ?? this.#options.perDevice) < this.#options.perDevice));
      if (worker === undefined) break;
      void this.#work(worker, this.#waiting.pop() as number);
    }
    if (this.#running > 0) return;
    if (this.#waiting.length > 0) this.#fail(this.#noneLeft());
    this.#finish();
  }

  async #work(worker: PoolWorker<Device>, index: number): Promise<void> {
    this.#count(worker, 1);
    worker.served++;
    try {
      const context = { index, deviceIndex: worker.index, signal: this.#options.signal };
      const result = await this.#apply(this.#items[index] as Item, worker.device, context);
      // What a lost device "finished" may never have been computed.
      if (worker.loss() === undefined) this.#results[index] = result;
      else this.#again(worker, index, worker.loss());
    } catch (error) {
      await worker.settled();
      const loss = worker.loss() ?? (error instanceof DeviceLostError ? error : undefined);
      if (loss === undefined) this.#fail(error);
      else this.#again(worker, index, loss);
    }
    this.#count(worker, -1);
    this.#advance();
  }

  #again(worker: PoolWorker<Device>, index: number, loss: Error | undefined): void {
    this.#lastLoss = loss;
    this.#working.delete(worker);
    this.#waiting.push(index);
  }

  #count(worker: PoolWorker<Device>, change: 1 | -1): void {
    worker.busy += change;
    this.#running += change;
    const own = this.#working.get(worker);
    if (own !== undefined) this.#working.set(worker, own + change);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
  }

  #noneLeft(): Error {
    const cause = this.#lastLoss ?? this.#workers.map((worker) => worker.loss()).find((loss) => loss !== undefined);
    if (cause !== undefined && !(cause instanceof DeviceLostError)) return cause;
    const missing = this.#waiting.length;
    return new DeviceLostError(
      cause?.reason ?? 'unknown',
      `every device of the pool is lost and ${missing} of ${this.#items.length} items are not done: make a new pool. The last loss: ${cause?.message ?? 'unknown'}`,
    );
  }
}
