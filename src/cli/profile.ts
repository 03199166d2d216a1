import { OutOfMemoryError, UnsupportedError } from '../core/errors.js';
import type { GenerationResult } from '../engine/generation.js';
import type { Model } from '../engine/model.js';
import { writeTextFile } from '../platform/files.js';
import type { Ceilings, StepTiming } from '../runtime/backend.js';
import { chromeTraceOfRuns, formatProfile, profileRows } from '../runtime/profile.js';
import { plural } from './format.js';
import { type Session, warn } from './session.js';

/** @throws UnsupportedError where nothing can be measured: before a text is written, not after it. */
export function checkProfile({ timesSteps, backend }: Pick<Model, 'timesSteps' | 'backend'>): void {
  if (timesSteps) return;
  throw new UnsupportedError(
    `--profile needs a clock on the device, and ${backend.name} has no timestamp queries: take another adapter (\`centella doctor --device webgpu\` shows "timestamps" of one) or --device cpu, or leave --profile out`,
  );
}

/** Measures where the time of a generation went, a run like its prompt's and one like its last token's: tables to standard error, a trace to a file. */
export async function profileRun(session: Session, model: Model, { timings }: GenerationResult, tracePath: string): Promise<void> {
  const { promptTokens, generatedTokens } = timings;
  const { terminal } = session;
  const ceilings = await ceilingsOf(session, model);
  const after = Math.min(promptTokens + generatedTokens, model.contextLength - 1);
  const runs = [
    ...(promptTokens > 1 ? [{ name: `a prompt of ${plural(promptTokens, 'token')}`, timings: await model.profile({ tokens: promptTokens }) }] : []),
    { name: `one token after ${after}`, timings: await model.profile({ after }) },
  ];
  for (const run of runs) terminal.report(`\n${run.name}\n${table(run.timings, ceilings)}\n`);
  await writeTextFile(tracePath, chromeTraceOfRuns(runs));
  terminal.report(`\ntrace in ${tracePath}: open it in chrome://tracing or ui.perfetto.dev\n`);
}

/** A device that a model fills up may have no room to measure what it reaches: then the tables are without. */
async function ceilingsOf(session: Session, model: Model): Promise<Ceilings | undefined> {
  try {
    return await model.ceilings();
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    warn(session, `what the device reaches is not measured: ${error.message}`);
    return undefined;
  }
}

/** Layers are added up. */
function table(timings: readonly StepTiming[], ceilings: Ceilings | undefined): string {
  return formatProfile(
    profileRows(timings, (label) => label.replace(/^blk\.\d+\./, '')),
    ceilings,
  );
}
