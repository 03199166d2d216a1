/** Every case of every operation on this machine's backends, against the f64 reference. */

import { ArgumentError, throwIfAborted } from '../core/errors.js';
import type { OpCase } from '../ops/case.js';
import { allCases } from '../ops/cases/index.js';
import type { Backend } from '../runtime/backend.js';
import { checkCase } from '../runtime/check.js';
import { type BackendOptions, openBackend } from '../runtime/select.js';

export interface CaseFailure {
  readonly name: string;
  /** The element that is farthest off, or the error that stopped the case. */
  readonly what: string;
}

export interface FamilyResult {
  readonly family: string;
  readonly passed: number;
  readonly failed: number;
  /** Largest error as a multiple of what is accepted: at most 1 passes. */
  readonly worst: number;
}

/** What one way of running has to say for itself. */
export interface ModeResult {
  /** "webgpu unchecked", "webgpu checked", "cpu". */
  readonly mode: string;
  readonly name: string;
  readonly reason: string;
  readonly families: readonly FamilyResult[];
  readonly failures: readonly CaseFailure[];
}

export interface CheckOptions {
  readonly backend: BackendOptions;
  /** A part of the names of the cases to run; case does not matter. */
  readonly filter: string;
  readonly signal: AbortSignal;
  onProgress(mode: string, done: number, total: number): void;
}

/** Runs the cases on the GPU that the options lead to (with WebGPU's own checks off, then on, where that is ours to choose) and on the CPU. */
export async function checkDevice(options: CheckOptions): Promise<readonly ModeResult[]> {
  const cases = allCases().filter(({ name }) => name.toLowerCase().includes(options.filter.toLowerCase()));
  if (cases.length === 0) throw new ArgumentError('filter', `no case has "${options.filter}" in its name: leave --filter out to run them all`);
  const results = [await checkMode(await openBackend({ ...options.backend, checked: false }), cases, options)];
  if (results[0]?.mode === 'webgpu unchecked') results.push(await checkMode(await openBackend({ ...options.backend, checked: true }), cases, options));
  if (results[0]?.mode !== 'cpu') results.push(await checkMode(await openBackend({ device: 'cpu' }), cases, options));
  return results;
}

async function checkMode(backend: Backend, cases: readonly OpCase[], { signal, onProgress }: CheckOptions): Promise<ModeResult> {
  const mode = backend.kind === 'cpu' ? 'cpu' : `webgpu ${backend.checks}`;
  const families = new Map<string, FamilyResult>();
  const failures: CaseFailure[] = [];
  try {
    for (const [index, opCase] of cases.entries()) {
      throwIfAborted(signal, 'the check');
      onProgress(mode, index, cases.length);
      const { worst, failure } = await outcomeOf(backend, opCase);
      if (failure !== undefined) failures.push({ name: opCase.name, what: failure });
      const before = families.get(opCase.op) ?? { family: opCase.op, passed: 0, failed: 0, worst: 0 };
      const counts = failure === undefined ? { passed: before.passed + 1 } : { failed: before.failed + 1 };
      families.set(opCase.op, { ...before, ...counts, worst: Math.max(before.worst, worst) });
    }
  } finally {
    backend.dispose();
  }
  return { mode, name: backend.name, reason: backend.reason, families: [...families.values()], failures };
}

/** An error is a failed case, not the end of the check: the next one may say what else is wrong. */
async function outcomeOf(backend: Backend, opCase: OpCase): Promise<{ readonly worst: number; readonly failure?: string }> {
  try {
    const { ok, worst, where } = await checkCase(backend, opCase);
    return ok ? { worst } : { worst, failure: where };
  } catch (error) {
    return { worst: Number.POSITIVE_INFINITY, failure: error instanceof Error ? error.message : String(error) };
  }
}
