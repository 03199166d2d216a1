/** A list of dispatches, recorded once and encoded again for every token: flat arrays, one tight loop, nothing allocated. */

import { ArgumentError } from '../core/errors.js';
import type { Grid } from '../core/kernel.js';

export interface Dispatch {
  readonly label: string;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly grid: Grid;
  /**
   * For profiles: dispatches of one kind have the same kernel, on other data, and may run several times and out of order as long as a whole run follows (they count nothing up, and read no
   * indices from memory that others use meanwhile). Absent for one that may not.
   */
  readonly kind?: string | undefined;
}

export class Recorder {
  readonly #labels: string[] = [];
  readonly #pipelines: GPUComputePipeline[] = [];
  readonly #bindGroups: GPUBindGroup[] = [];
  /** Workgroups, three numbers a dispatch. */
  readonly #grids: number[] = [];
  readonly #kinds: (string | undefined)[] = [];

  get length(): number {
    return this.#pipelines.length;
  }

  /** Appends a dispatch and returns its index. */
  add({ label, pipeline, bindGroup, grid, kind }: Dispatch): number {
    this.#labels.push(label);
    this.#pipelines.push(pipeline);
    this.#bindGroups.push(bindGroup);
    this.#grids.push(grid[0], grid[1], grid[2]);
    this.#kinds.push(kind);
    return this.length - 1;
  }

  /** Appends the dispatches of another list. */
  append(other: Recorder): void {
    this.#labels.push(...other.#labels);
    this.#pipelines.push(...other.#pipelines);
    this.#bindGroups.push(...other.#bindGroups);
    this.#grids.push(...other.#grids);
    this.#kinds.push(...other.#kinds);
  }

  label(index: number): string {
    this.#assertIndex(index);
    return this.#labels[index] as string;
  }

  kind(index: number): string | undefined {
    this.#assertIndex(index);
    return this.#kinds[index];
  }

  /** Encodes the dispatches `from` to `to` (exclusive). State that does not change from one to the next is not set again: each call costs a microsecond. */
  record(pass: GPUComputePassEncoder, from = 0, to = this.length): void {
    let currentPipeline: GPUComputePipeline | undefined;
    let currentGroup: GPUBindGroup | undefined;
    for (let index = from; index < to; index++) {
      const pipeline = this.#pipelines[index] as GPUComputePipeline;
      if (pipeline !== currentPipeline) {
        pass.setPipeline(pipeline);
        currentPipeline = pipeline;
      }
      const group = this.#bindGroups[index] as GPUBindGroup;
      if (group !== currentGroup) {
        pass.setBindGroup(0, group);
        currentGroup = group;
      }
      pass.dispatchWorkgroups(this.#grids[3 * index] as number, this.#grids[3 * index + 1] as number, this.#grids[3 * index + 2] as number);
    }
  }

  #assertIndex(index: number): void {
    if (!(index >= 0 && index < this.length)) throw new ArgumentError('index', `the recorder holds dispatches 0 to ${this.length - 1}, got ${index}`);
  }
}
