import type { GenerationResult } from '../engine/generation.js';
import type { Model } from '../engine/model.js';
import { writeTextFile } from '../platform/files.js';
import type { Ceilings, StepTiming } from '../runtime/backend.js';
import { chromeTraceOfRuns, formatProfile, profileRows } from '../runtime/profile.js';
import { plural } from './format.js';
import type { Session } from './session.js';

/** Measures where the time of a generation went, a run like its prompt's and one like its last token's: tables to standard error, a trace to a file. */
export async function profileRun({ terminal }: Session, model: Model, { timings }: GenerationResult, tracePath: string): Promise<void> {
  const { promptTokens, generatedTokens } = timings;
  const ceilings = await model.ceilings();
  const after = Math.min(promptTokens + generatedTokens, model.contextLength - 1);
  const runs = [
    ...(promptTokens > 1 ? [{ name: `a prompt of ${plural(promptTokens, 'token')}`, timings: await model.profile({ tokens: promptTokens }) }] : []),
    { name: `one token after ${after}`, timings: await model.profile({ after }) },
  ];
  for (const run of runs) terminal.report(`\n${run.name}\n${table(run.timings, ceilings)}\n`);
  await writeTextFile(tracePath, chromeTraceOfRuns(runs));
  terminal.report(`\ntrace in ${tracePath}: open it in chrome://tracing or ui.perfetto.dev\n`);
}

/** Layers are added up. */
function table(timings: readonly StepTiming[], ceilings: Ceilings | undefined): string {
  return formatProfile(
    profileRows(timings, (label) => label.replace(/^blk\.\d+\./, '')),
    ceilings,
  );
}
