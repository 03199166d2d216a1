/** Ends a run with what was not run, by name. */

import type { TestCase, TestModule } from 'vitest/node';
import type { Reporter } from 'vitest/reporters';

export class NotRunReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const notRun = modules.flatMap((module) => [...module.children.allTests('skipped')]);
    if (notRun.length > 0) process.stdout.write(`Not run (${notRun.length}):\n${notRun.map(line).join('')}`);
  }
}

function line(entry: TestCase): string {
  return `  ${entry.project.name}: ${entry.module.relativeModuleId} > ${entry.fullName}\n`;
}
