/** Arguments of benchmarks: `--name=value` or `--name value`, flags, and the rest in order. */

import type { DeviceChoice } from '../../src/runtime/select.js';

/** What `main.ts` takes for itself; every benchmark may be called with them. */
const common = { flags: ['json'], values: ['save', 'compare'] } as const;

export interface KnownArgs {
  /** Options without a value. */
  readonly flags?: readonly string[];
  /** Options with one. */
  readonly values?: readonly string[];
}

/** @throws Error for an option that the benchmark does not know, or a value that is missing or of another kind. */
export class BenchArgs {
  /** What is no option. */
  readonly rest: readonly string[];
  readonly #flags = new Set<string>();
  readonly #values = new Map<string, string[]>();

  constructor(args: readonly string[], { flags = [], values = [] }: KnownArgs) {
    const [allFlags, allValues] = [new Set([...common.flags, ...flags]), new Set([...common.values, ...values])];
    const rest: string[] = [];
    for (let at = 0; at < args.length; at++) {
      const arg = args[at] ?? '';
      const [, name = '', inline] = /^--([\w-]+)(?:=(.*))?$/.exec(arg) ?? [];
      if (name === '') rest.push(arg);
      else if (allFlags.has(name) && inline === undefined) this.#flags.add(name);
      else if (allValues.has(name)) {
        const value = inline ?? args[++at];
        if (value === undefined) throw new Error(`--${name} wants a value`);
        this.#values.set(name, [...(this.#values.get(name) ?? []), value]);
      } else
        throw new Error(
          `unknown option ${arg}: this benchmark takes ${[...allFlags, ...[...allValues].map((known) => `${known}=...`)].map((known) => `--${known}`).join(' ')}`,
        );
    }
    this.rest = rest;
  }

  flag(name: string): boolean {
    return this.#flags.has(name);
  }

  /** The last value given. */
  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  /** All values given, those between commas too. */
  list(name: string): readonly string[] {
    return (this.#values.get(name) ?? []).flatMap((value) => value.split(',')).filter((value) => value !== '');
  }

  /** A whole number from 1 on. */
  count(name: string, otherwise: number): number {
    return this.counts(name, [otherwise])[0] ?? otherwise;
  }

  counts(name: string, otherwise: readonly number[]): readonly number[] {
    const given = this.list(name);
    if (given.length === 0) return otherwise;
    return given.map((text) => {
      const value = Number(text);
      if (!Number.isSafeInteger(value) || value < 1) throw new Error(`--${name} wants whole numbers from 1 on, got ${text}`);
      return value;
    });
  }

  /** `--device`, default 'auto'. */
  device(): DeviceChoice {
    const device = this.text('device') ?? 'auto';
    if (device === 'auto' || device === 'webgpu' || device === 'cpu') return device;
    throw new Error(`--device is auto, webgpu or cpu, got ${device}`);
  }
}
