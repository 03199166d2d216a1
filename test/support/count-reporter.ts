/** Ends a run with what was not run, by name, and with one plain line of counts. */

import type { SerializedError, TestCase, TestModule } from 'vitest/node';
import type { Reporter } from 'vitest/reporters';

export class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly SerializedError[]): void {
    const cases = modules.flatMap((module) => [...module.children.allTests()]);
    const notRun = cases.filter((entry) => entry.result().state === 'skipped');
    const passed = cases.filter((entry) => entry.result().state === 'passed').length;
    // A file that failed outside its cases, or that never finished them, fails as one.
    const brokenFiles = modules.filter((module) => module.state() === 'failed' && ![...module.children.allTests('failed')].length).length;
    const failed = cases.length - passed - notRun.length + brokenFiles + errors.length;
    if (notRun.length > 0) process.stdout.write(`Not run (${notRun.length}):\n${notRun.map(line).join('')}`);
    process.stdout.write(`${passed} passed, ${failed} failed${notRun.length > 0 ? `, ${notRun.length} skipped` : ''}\n`);
  }
}

function line(entry: TestCase): string {
  return `  ${entry.project.name}: ${entry.module.relativeModuleId} > ${entry.fullName}\n`;
}
