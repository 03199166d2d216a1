import { describe, expect, it } from 'vitest';
import { count, countLine } from '../../scripts/count-report.mjs';

function file(status: string, ...cases: string[]): { status: string; assertionResults: { status: string }[] } {
  return { status, assertionResults: cases.map((entry) => ({ status: entry })) };
}

describe('the line of counts', () => {
  it('counts cases, and leaves out what there is none of', () => {
    expect(countLine(count({ success: true, testResults: [file('passed', 'passed', 'passed')] }))).toBe('2 passed, 0 failed');
    expect(countLine(count({ success: false, testResults: [file('failed', 'passed', 'failed', 'skipped', 'pending')] }))).toBe('1 passed, 1 failed, 2 skipped');
  });

  it('counts a file that broke outside its cases, and a run that failed outside its files', () => {
    expect(countLine(count({ success: false, testResults: [file('failed')] }))).toBe('0 passed, 1 failed');
    expect(countLine(count({ success: false, testResults: [file('passed', 'passed')] }))).toBe('1 passed, 1 failed');
  });
});
