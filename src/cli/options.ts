/** Options that several commands share, and the parsers of their values. */

import { type Command, InvalidArgumentError, Option } from 'commander';
import { ArgumentError } from '../core/errors.js';
import type { CacheType } from '../model/decoder-graph.js';
import type { BackendOptions, DeviceChoice } from '../runtime/select.js';

export interface DeviceOptions {
  readonly device: DeviceChoice;
  readonly adapter?: number | string;
  readonly checked?: true;
}

/** `--device`, `--adapter` and, unless told otherwise, `--checked`. */
export function addDeviceOptions(command: Command, { checked = true } = {}): Command {
  command
    .addOption(new Option('--device <device>', 'auto: a hardware GPU, else the CPU').choices(['auto', 'webgpu', 'cpu']).default('auto'))
    .option('--adapter <index|name>', 'a WebGPU adapter by its number or a part of its name in `centella doctor`', parseAdapter);
  return checked ? command.option('--checked', "keep all of WebGPU's own checks on: slower, and safe from wrong memory accesses") : command;
}

export function backendOptions({ device, adapter, checked }: DeviceOptions): BackendOptions {
  if (adapter !== undefined && device === 'cpu')
    throw new ArgumentError('adapter', '--adapter chooses a WebGPU adapter, but --device cpu asks for none: give one of the two');
  return { device, ...(adapter === undefined ? {} : { adapter }), ...(checked ? { checked } : {}) };
}

function parseAdapter(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text;
}

/** `--kv`: the type of the KV cache. */
export function addCacheOption(command: Command): Command {
  const help = 'type of the KV cache (default: f16 where the GPU computes with it, else f32)';
  return command.addOption(new Option('--kv <type>', help).choices(['f16', 'f32', 'q8_0'] satisfies CacheType[]));
}

/** A whole number from `min` on. */
export function wholeNumber(min: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(Number.isSafeInteger(value) && value >= min)) throw new InvalidArgumentError(`Wanted a whole number from ${min} on.`);
    return value;
  };
}

/** Any finite number; its range is the sampler's to check. */
export function realNumber(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!Number.isFinite(value)) throw new InvalidArgumentError('Wanted a number.');
  return value;
}

/** Token ids between commas or spaces, as an option's value. */
export function tokenIdsOption(text: string): readonly number[] {
  try {
    return tokenIds(text);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}

/** Token ids between commas or spaces. @throws ArgumentError */
export function tokenIds(text: string): readonly number[] {
  const parts = text.split(/[\s,]+/).filter((part) => part !== '');
  const bad = parts.find((part) => !/^\d{1,15}$/.test(part));
  if (parts.length === 0 || bad !== undefined) {
    throw new ArgumentError('ids', `token ids are whole numbers between commas or spaces, got ${bad === undefined ? 'none' : JSON.stringify(bad)}`);
  }
  return parts.map(Number);
}

/** Gathers an option that may be given several times. */
export function collect(text: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), text];
}
