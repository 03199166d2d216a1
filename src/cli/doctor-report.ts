/** What `doctor` found, as text and as JSON. */

import type { GpuCapabilities } from '../core/capabilities.js';
import type { BackendReport } from '../engine/model.js';
import type { AdapterList } from '../gpu/adapter.js';
import type { TuningReport } from '../runtime/tuning-file.js';
import type { ModeResult } from './doctor-check.js';
import type { KernelChoice } from './doctor-kernels.js';
import { formatCount, formatTable, plural } from './format.js';

export interface DoctorReport {
  readonly version: string;
  readonly runtime: string;
  readonly adapters: AdapterList;
  readonly chosen: BackendReport | undefined;
  /** Why nothing could be chosen. */
  readonly problem: string | undefined;
  /** The chosen adapter, else the first one. */
  readonly device: { readonly name: string; readonly capabilities: GpuCapabilities; readonly kernels: readonly KernelChoice[] } | undefined;
  /** Of the chosen WebGPU adapter: which kernel shapes were measured on it. */
  readonly tuning: TuningReport | undefined;
  readonly cpu: { readonly simd: boolean; readonly threads: number };
}

export function reportText({ version, runtime, adapters, chosen, problem, device, tuning, cpu }: DoctorReport): string {
  const parts = [
    formatTable([
      ['centella', version],
      ['runtime', runtime],
    ]),
    `adapters\n${adaptersText(adapters)}`,
  ];
  parts.push(`chosen\n${chosen === undefined ? `  none: ${problem}\n` : chosenText(chosen)}`);
  if (device !== undefined) {
    const aside = chosen?.kind === 'webgpu' ? '' : ' (with --device webgpu)';
    parts.push(`features of ${device.name}${aside}\n${featuresText(device.capabilities)}`);
    parts.push(
      `limits\n${formatTable(
        Object.entries(device.capabilities.limits).map(([name, value]) => [name, formatCount(value)]),
        '  ',
      )}`,
    );
    parts.push(
      `kernels\n${formatTable(
        device.kernels.map(({ problem: what, variant, reason }) => [what, variant, reason]),
        '  ',
      )}`,
    );
  }
  if (tuning !== undefined) parts.push(`tuning\n${tuningText(tuning)}`);
  parts.push(
    `cpu backend\n${formatTable(
      [
        ['WebAssembly SIMD', cpu.simd ? 'yes' : 'no: this backend cannot run here'],
        ['threads', String(cpu.threads)],
      ],
      '  ',
    )}`,
  );
  return parts.join('\n');
}

function adaptersText({ adapters, notes }: AdapterList): string {
  const rows = adapters.map(({ index, name, backend, software, pciAddress }) => [
    String(index),
    name,
    backend,
    software ? 'software' : 'hardware',
    pciAddress ?? '',
  ]);
  const none = adapters.length === 0 ? '  none\n' : '';
  return `${none}${formatTable(rows, '  ')}${notes.map((note) => `  note: ${note}\n`).join('')}`;
}

function chosenText({ kind, name, reason, checks }: BackendReport): string {
  const rows = [
    ['backend', kind],
    [kind === 'cpu' ? 'kernels' : 'adapter', name],
    ['why', reason],
  ];
  return formatTable(kind === 'cpu' ? rows : [...rows, ['checks', checks]], '  ');
}

function tuningText({ source, problem, used, ignored }: TuningReport): string {
  if (source === 'none') return '  none: shipped shapes (measure this adapter with `centella tune MODEL`)\n';
  if (problem !== undefined) return `  ${source}\n  ignored, shipped shapes are used: ${problem}\n`;
  return `  ${source}\n${used.map((product) => `  used: ${product}\n`).join('')}${ignored.map(({ product, reason }) => `  ignored: ${product}: ${reason}\n`).join('')}`;
}

function featuresText(capabilities: GpuCapabilities): string {
  const { f16, subgroups, subgroupMinSize: min, subgroupMaxSize: max, packedDot, timestamps, subgroupMatrices, vendor, architecture } = capabilities;
  const yes = (has: boolean): string => (has ? 'yes' : 'no');
  const matrices = subgroupMatrices.map(({ m, n, k, componentType, resultComponentType }) => `${m}x${n}x${k} ${componentType} to ${resultComponentType}`);
  return formatTable(
    [
      ['vendor', `${vendor === '' ? 'unknown' : vendor}${architecture === '' ? '' : `, ${architecture}`}`],
      ['description', capabilities.description],
      ['renders in', capabilities.software ? 'software' : 'hardware'],
      ['f16', yes(f16)],
      ['subgroups', subgroups ? `of ${min === max ? min : `${min} to ${max}`}` : 'no'],
      ['subgroup matrices', matrices.length === 0 ? 'no' : matrices.join('; ')],
      ['packed dot products', yes(packedDot)],
      ['timestamps', yes(timestamps)],
    ],
    '  ',
  );
}

export function reportJson({ version, runtime, adapters, chosen, problem, device, tuning, cpu }: DoctorReport): object {
  return {
    version,
    runtime,
    adapters: adapters.adapters,
    notes: adapters.notes,
    chosen: chosen ?? null,
    problem: problem ?? null,
    device: device ?? null,
    tuning: tuning ?? null,
    cpu,
  };
}

/** Failed cases that are told one by one; a broken driver fails them all alike. */
const mostTold = 10;

export function checksText(results: readonly ModeResult[]): string {
  return [...results.map(modeText), verdict(results)].join('\n');
}

function modeText({ mode, name, reason, families, failures }: ModeResult): string {
  const rows = families.map(({ family, passed, failed, worst }) => [`  ${family}`, passed, failed, worst.toFixed(3)]);
  const told = failures.slice(0, mostTold).map((failure) => `  failed: ${failure.name}: ${failure.what}\n`);
  const more = failures.length > mostTold ? `  and ${plural(failures.length - mostTold, 'failed case')} more: --json lists them all\n` : '';
  return `${mode}: ${name}\n  ${reason}\n${formatTable([['  family', 'passed', 'failed', 'worst error (1 is accepted)'], ...rows])}${told.join('')}${more}`;
}

function verdict(results: readonly ModeResult[]): string {
  const trusted = results.filter(({ failures }) => failures.length === 0).map(({ mode }) => mode);
  const others = results.filter(({ failures }) => failures.length > 0);
  const lines = [`trust: ${trusted.length === 0 ? 'none' : trusted.join(', ')}`];
  for (const { mode, families, failures } of others) {
    const all = families.reduce((sum, { passed, failed }) => sum + passed + failed, 0);
    lines.push(`do not trust: ${mode}, where ${failures.length} of ${plural(all, 'case')} failed`);
  }
  if (trusted.includes('webgpu checked') && !trusted.includes('webgpu unchecked')) lines.push('next: run models with --checked');
  else if (others.some(({ mode }) => mode.startsWith('webgpu')) && trusted.includes('cpu'))
    lines.push('next: update the graphics driver, or run models with --device cpu');
  return `${lines.join('\n')}\n`;
}

export function checksJson(results: readonly ModeResult[]): object {
  return {
    ok: results.every(({ failures }) => failures.length === 0),
    trusted: results.filter(({ failures }) => failures.length === 0).map(({ mode }) => mode),
    // JSON has no infinity: a case that did not run, or met NaN, has no error to tell.
    modes: results.map((result) => ({
      ...result,
      families: result.families.map((family) => ({ ...family, worst: Number.isFinite(family.worst) ? family.worst : null })),
    })),
  };
}
