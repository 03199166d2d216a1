/** The built command in processes of its own, and the same command within the test's. */

import { type ChildProcess, spawn } from 'node:child_process';
import { runCommandLine } from '../../src/cli/program.js';
import { repositoryFile } from './fixtures.js';

export interface CliResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Called with the process once it has started. */
  readonly watch?: (child: ChildProcess) => void;
}

/** Runs `centella ARGS` to its end; its streams are pipes, not terminals. */
export function centella(args: readonly string[], { input = '', env = {}, watch }: CliOptions = {}): Promise<CliResult> {
  const child = spawn(process.execPath, [repositoryFile('dist/cli/main.js'), ...args], { env: { ...process.env, ...env } });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  watch?.(child);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }));
  });
}

/** What a command wrote, which must have ended fine. */
export async function outputOf(args: readonly string[], options: CliOptions = {}): Promise<string> {
  const { status, stdout, stderr } = await centella(args, options);
  if (status !== 0) throw new Error(`centella ${args.join(' ')} ended with status ${status}:\n${stderr}`);
  return stdout;
}

/** Runs a command that reads no input and writes no file, from the sources and without a process: for many small calls. */
export async function centellaHere(args: readonly string[]): Promise<CliResult> {
  let stdout = '';
  let stderr = '';
  const refused = (what: string) => (): never => {
    throw new Error(`centellaHere has no ${what}: run the command in a process`);
  };
  const status = await runCommandLine({
    args,
    outputIsTty: false,
    reportIsTty: false,
    write: async (text) => {
      stdout += text;
    },
    report: (text) => {
      stderr += text;
    },
    readInput: refused('input'),
    writeFile: refused('files'),
    onInterrupt: () => undefined,
    exit: refused('process to end'),
    exitNow: refused('process to end'),
  });
  return { status, stdout, stderr };
}
