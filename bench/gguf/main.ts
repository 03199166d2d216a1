/**
 * What the GGUF reader costs: time and memory for malformed files, the time to read a large vocabulary, and the codecs' speed. The table goes to stderr, one
 * JSON object to stdout. An argument names a folder of further files to open.
 */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dequantize, type EncodableDType, FormatError, ggufValue, openGguf, quantize, writeGguf } from '../../src/gguf.js';
import { badFiles } from './bad-files.js';

export const summary = 'malformed GGUF files (time, memory), the header of a 262,144-token vocabulary, and the block codecs';

/** What each malformed file may cost. */
const allowedMs = 50;
const allowedMiB = 16;

const tokens = 262_144;
const merges = 514_906;

interface FileCost {
  readonly name: string;
  /** The error's code, or "loads". */
  readonly verdict: string;
  readonly ms: number;
  /** Growth of the process while the file was open. */
  readonly rssMiB: number;
}

async function costOf(name: string, path: string): Promise<FileCost> {
  const before = process.memoryUsage.rss();
  const peakBefore = process.resourceUsage().maxRSS;
  const started = performance.now();
  const verdict = await openGguf(path).then(
    async (file) => {
      await file.close();
      return 'loads';
    },
    (error: unknown) => (error instanceof FormatError ? error.code : `untyped: ${String(error)}`),
  );
  const ms = performance.now() - started;
  const growth = Math.max(process.memoryUsage.rss() - before, (process.resourceUsage().maxRSS - peakBefore) * 1024);
  return { name, verdict, ms, rssMiB: growth / 2 ** 20 };
}

async function malformed(folder: string, extra: string | undefined): Promise<FileCost[]> {
  const files = badFiles.map(({ name, bytes }, i) => {
    const path = join(folder, `${i}.gguf`);
    writeFileSync(path, bytes);
    return { name, path };
  });
  if (extra !== undefined) files.push(...readdirSync(extra).map((name) => ({ name, path: join(extra, name) })));
  const costs: FileCost[] = [];
  for (const { name, path } of files) costs.push(await costOf(name, path));
  return costs;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

interface HeaderCost {
  readonly headerMB: number;
  /** Open and check; strings are not decoded yet. */
  readonly openMs: number;
  /** Open, check, and decode every string. */
  readonly decodedMs: number;
}

/** A header as large as a 262,144-token model's: plain and non-ASCII tokens, scores, types, merges. */
async function vocabulary(folder: string): Promise<HeaderCost> {
  const alphabet = ['▁the', 'ing', '東京', 'é', '<0x', '😀', '▁', 'qu'];
  const token = (i: number): string => `${alphabet[i % 8]}${i.toString(36)}`;
  const bytes = writeGguf({
    metadata: [
      ['tokenizer.ggml.tokens', ggufValue.strings(Array.from({ length: tokens }, (_, i) => token(i)))],
      ['tokenizer.ggml.scores', ggufValue.f32s(Array.from({ length: tokens }, (_, i) => -i))],
      ['tokenizer.ggml.token_type', ggufValue.i32s(Array.from({ length: tokens }, () => 1))],
      ['tokenizer.ggml.merges', ggufValue.strings(Array.from({ length: merges }, (_, i) => `${token(i)} ${i % 977}`))],
    ],
    tensors: [],
  });
  const path = join(folder, 'vocabulary.gguf');
  writeFileSync(path, bytes);
  const opens: number[] = [];
  const decodes: number[] = [];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    const file = await openGguf(path);
    opens.push(performance.now() - started);
    const last = [file.getStringArray('tokenizer.ggml.tokens')?.at(-1), file.getStringArray('tokenizer.ggml.merges')?.length];
    decodes.push(performance.now() - started);
    await file.close();
    if (last[0] !== token(tokens - 1) || last[1] !== merges) throw new Error(`the vocabulary came back wrong: ${last.join(', ')}`);
  }
  return { headerMB: bytes.length / 1e6, openMs: median(opens), decodedMs: median(decodes) };
}

interface CodecCost {
  readonly dtype: string;
  /** Million values a second. */
  readonly decode: number;
  readonly encode: number;
}

function codecSpeed(dtype: EncodableDType): CodecCost {
  const values = Float32Array.from({ length: 1 << 18 }, (_, i) => Math.sin(i * 0.7) + Math.sin(i * 0.013));
  const rate = (work: () => void): number => {
    const times = Array.from({ length: 3 }, () => {
      const started = performance.now();
      work();
      return performance.now() - started;
    });
    return values.length / 1000 / median(times);
  };
  const packed = quantize(dtype, values, 512);
  const out = new Float32Array(values.length);
  return { dtype, decode: rate(() => dequantize(dtype, packed, out)), encode: rate(() => quantize(dtype, values, 512)) };
}

function printTable(costs: readonly FileCost[], header: HeaderCost, codecs: readonly CodecCost[]): void {
  for (const { name, verdict, ms, rssMiB } of costs)
    console.error(`${name.padEnd(44)} ${verdict.padEnd(16)} ${ms.toFixed(2).padStart(8)} ms ${rssMiB.toFixed(2).padStart(7)} MiB`);
  const slowest = Math.max(...costs.map(({ ms }) => ms));
  const largest = Math.max(...costs.map(({ rssMiB }) => rssMiB));
  const within = costs.filter(({ ms, rssMiB }) => ms < allowedMs && rssMiB < allowedMiB).length;
  console.error(
    `\n${within} of ${costs.length} files within ${allowedMs} ms and ${allowedMiB} MiB; at most ${slowest.toFixed(1)} ms, ${largest.toFixed(1)} MiB`,
  );
  console.error(
    `header of ${header.headerMB.toFixed(1)} MB: opened in ${header.openMs.toFixed(0)} ms, with every string decoded ${header.decodedMs.toFixed(0)} ms\n`,
  );
  for (const { dtype, decode, encode } of codecs)
    console.error(`${dtype.padEnd(6)} decodes ${decode.toFixed(0).padStart(5)}, encodes ${encode.toFixed(1).padStart(6)} million values a second`);
}

export async function run(args: readonly string[]): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-gguf-'));
  try {
    const costs = await malformed(folder, args[0]);
    const header = await vocabulary(folder);
    const types: readonly EncodableDType[] = ['f16', 'bf16', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q8_0', 'q4_k', 'q5_k', 'q6_k'];
    const codecs = types.map(codecSpeed);
    printTable(costs, header, codecs);
    console.log(JSON.stringify({ files: costs, header, codecs }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
