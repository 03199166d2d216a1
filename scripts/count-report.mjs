// `node scripts/count-report.mjs REPORT.json`: one plain line of counts from vitest's JSON report, and status 1 unless everything that ran passed.
import { existsSync, readFileSync } from 'node:fs';

/**
 * @typedef {object} Report
 * @property {boolean} success
 * @property {{ status: string, assertionResults: { status: string }[] }[]} testResults
 */

/** @param {Report} report */
export function count(report) {
  const statuses = report.testResults.flatMap((file) => file.assertionResults.map((result) => result.status));
  const passed = statuses.filter((status) => status === 'passed').length;
  // A file that broke outside its cases counts as one failure, and so does a run that failed in no file at all.
  const broken = report.testResults.filter((file) => file.status === 'failed' && file.assertionResults.every((result) => result.status !== 'failed')).length;
  const failed = statuses.filter((status) => status === 'failed').length + broken;
  const skipped = statuses.length - passed - (failed - broken);
  return { passed, failed: failed === 0 && !report.success ? 1 : failed, skipped };
}

/** @param {{ passed: number, failed: number, skipped: number }} counts */
export function countLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

const path = process.argv[2];
if (path !== undefined && process.argv[1]?.endsWith('count-report.mjs')) {
  const counts = existsSync(path) ? count(JSON.parse(readFileSync(path, 'utf8'))) : { passed: 0, failed: 1, skipped: 0 };
  console.log(countLine(counts));
  if (counts.failed > 0) process.exitCode = 1;
}
