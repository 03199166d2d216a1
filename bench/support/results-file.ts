/** Files of reports, one a machine: `--save FILE` puts figures in, `--compare FILE` prints the ratios to them. */

import { accessSync, constants, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, availableParallelism, cpus, platform, release } from 'node:os';
import { dirname } from 'node:path';
import { type BenchReport, type BenchResult, figureKey, formatFigure, higherIsBetter, ownName } from './result.js';

export interface ResultsFile {
  readonly reports: readonly BenchReport[];
}

const nvidiaVersion = '/proc/driver/nvidia/version';

/** The machine and the versions that figures depend on. */
function machine(): Record<string, string> {
  const version = (name: string): string => {
    try {
      return (createRequire(import.meta.url)(`${name}/package.json`) as { version: string }).version;
    } catch {
      return 'unknown';
    }
  };
  // Dawn says no driver version; NVIDIA's driver says its own here.
  const driver = existsSync(nvidiaVersion) ? /\b\d{3}\.[\d.]+/.exec(readFileSync(nvidiaVersion, 'utf8'))?.[0] : undefined;
  const cpu = cpus()[0]?.model.trim() ?? arch();
  return {
    cpu: `${cpu}, ${availableParallelism()} threads`,
    system: `${platform()} ${release()}`,
    node: process.versions.node,
    dawn: `webgpu ${version('webgpu')}`,
    ...(driver === undefined ? {} : { driver: `NVIDIA ${driver}` }),
  };
}

export function reportOf(bench: string, args: readonly string[], result: BenchResult): BenchReport {
  const own = args.filter((arg, index) => !isOwn(arg) && !(index > 0 && /^--(save|compare)$/.test(args[index - 1] ?? '')));
  const command = ['node dist/bench/main.js', bench, ...own].join(' ');
  return { bench, command, date: new Date().toISOString().slice(0, 10), machine: machine(), ...result };
}

function isOwn(arg: string): boolean {
  return /^--(json|save|compare)(=|$)/.test(arg);
}

/** @throws Error where the file is none of results. */
export function readResults(path: string): ResultsFile {
  if (!existsSync(path)) return { reports: [] };
  let read: unknown;
  try {
    read = JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new Error(`${path} is no file of results: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (typeof read !== 'object' || read === null || !('reports' in read) || !Array.isArray(read.reports))
    throw new Error(`${path} is no file of results, it has no list of reports: --save=FILE makes one`);
  return read as ResultsFile;
}

/** @throws Error where figures could not be kept: what took minutes must not be lost at its end. */
export function checkSavePath(path: string): void {
  readResults(path);
  try {
    accessSync(existsSync(path) ? path : dirname(path), constants.W_OK);
  } catch (cause) {
    throw new Error(`--save=${path} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** What to compare with. @throws Error where there is none: a guard without anything to hold figures against would pass all of them. */
export function readComparison(path: string): ResultsFile {
  if (!existsSync(path)) throw new Error(`--compare=${path}: there is no such file; --save=FILE makes one`);
  return readResults(path);
}

/** Adds a report; older figures of the same keys leave the reports of the same benchmark and device. */
export function merged({ reports }: ResultsFile, report: BenchReport): ResultsFile {
  const fresh = new Set(report.figures.map(figureKey));
  const kept = reports.map((other) =>
    other.bench === report.bench && other.adapter === report.adapter
      ? { ...other, figures: other.figures.filter((figure) => !fresh.has(figureKey(figure))) }
      : other,
  );
  const all = [...kept.filter(({ figures }) => figures.length > 0), report];
  return { reports: all.sort((a, b) => a.bench.localeCompare(b.bench)) };
}

/** One figure a line: a results file is read in diffs. */
export function formatResults({ reports }: ResultsFile): string {
  const text = reports.map(({ figures, ...head }) => {
    const lines = figures.map((figure) => `        ${JSON.stringify(figure, rounded)}`);
    const open = JSON.stringify(head, null, 2)
      .replaceAll('\n', '\n    ')
      .replace(/\n {4}\}$/, '');
    return `    ${open},\n      "figures": [\n${lines.join(',\n')}\n      ]\n    }`;
  });
  return `{\n  "reports": [\n${text.join(',\n')}\n  ]\n}\n`;
}

/** Six digits: clocks have no more. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value;
}

export function saveReport(path: string, report: BenchReport): void {
  writeFileSync(path, formatResults(merged(readResults(path), report)));
}

export interface Comparison {
  readonly line: string;
  /** How many times better than before; below 1 is worse. */
  readonly gain: number;
}

/** This report's figures beside those that a file has of them on the same device, the worst first. */
export function compareReport({ reports }: ResultsFile, report: BenchReport): readonly Comparison[] {
  const same = reports.filter(({ bench, adapter }) => bench === report.bench && adapter === report.adapter);
  const known = new Map(same.flatMap(({ figures }) => figures.map((figure) => [figureKey(figure), figure])));
  const compared = report.figures.flatMap((figure): Comparison[] => {
    const before = known.get(figureKey(figure));
    if (before === undefined || before.unit !== figure.unit) return [];
    const gain = higherIsBetter(figure.unit) ? quotient(figure.value, before.value) : quotient(before.value, figure.value);
    const by = figure.by === undefined || figure.by === ownName ? '' : ` by ${figure.by}`;
    const checks = figure.checks === undefined ? '' : `, ${figure.checks}`;
    return [{ gain, line: `${gain.toFixed(3)}  ${figure.name}${by}${checks}: ${formatFigure(figure)}, was ${formatFigure(before)}` }];
  });
  return compared.sort((a, b) => a.gain - b.gain);
}

/** Nothing is as much as nothing: counts may be 0. A figure that is no number is the worst. */
function quotient(a: number, b: number): number {
  const ratio = a === b ? 1 : a / b;
  return Number.isNaN(ratio) ? 0 : ratio;
}

/** What a guard prints: the ratios, and how many figures it could say nothing of, and why. */
export function comparisonText(path: string, file: ResultsFile, report: BenchReport): string {
  const lines = compareReport(file, report).map(({ line }) => `  ${line}`);
  const missing = report.figures.length - lines.length;
  const others = [...new Set(file.reports.filter(({ bench }) => bench === report.bench).map(({ adapter }) => adapter))].filter(
    (name) => name !== report.adapter,
  );
  const why = others.length === 0 ? '' : `; it also has ${report.bench} on ${others.join(', ')}, which is not compared`;
  const rest = missing === 0 ? [] : [`  ${missing} of ${report.figures.length} figures are not in it for ${report.adapter}${why}`];
  return [`beside ${path}:`, ...lines, ...rest].join('\n');
}
