/** The process as a command sees it: arguments, streams, Ctrl-C and the end. Server runtimes only; nothing is touched until `openTerminal` is called. */

import { CentellaError } from '../core/errors.js';
import { nodeModule } from './node-module.js';

export interface Terminal {
  /** Arguments after the script's own name. */
  readonly args: readonly string[];
  /** Whether a person watches standard output (standard error): colours, bars and a last line break are for them. */
  readonly outputIsTty: boolean;
  readonly reportIsTty: boolean;
  /** Writes to standard output; resolves when the system has taken the text. */
  write(text: string): Promise<void>;
  /** Writes to standard error. */
  report(text: string): void;
  /** All of standard input as text. @throws CentellaError E_IO where it is not UTF-8. */
  readInput(): Promise<string>;
  /** @throws CentellaError E_IO where the file cannot be written. */
  writeFile(path: string, bytes: Uint8Array): Promise<void>;
  /** Calls `handler` at every Ctrl-C, which then no longer ends the process by itself. */
  onInterrupt(handler: () => void): void;
  /** Ends the process, once both streams are written. */
  exit(status: number): Promise<never>;
  /** Ends the process at once. */
  exitNow(status: number): never;
}

export function openTerminal(): Terminal {
  const { stdin, stdout, stderr } = process;
  // Whoever read the output has had enough of it (`| head`): there is nobody left to write for, and nothing went wrong.
  stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  stderr.on('error', () => undefined);
  return {
    args: process.argv.slice(2),
    outputIsTty: stdout.isTTY === true,
    reportIsTty: stderr.isTTY === true,
    write: (text) => flush(stdout, text),
    report: (text) => {
      stderr.write(text);
    },
    async readInput() {
      const chunks: Uint8Array[] = [];
      for await (const chunk of stdin) chunks.push(chunk as Uint8Array);
      try {
        return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
      } catch (cause) {
        throw new CentellaError('E_IO', 'standard input is not UTF-8 text: convert it first', { cause });
      }
    },
    async writeFile(path, bytes) {
      await nodeModule('node:fs/promises')
        .writeFile(path, bytes)
        .catch((cause: unknown) => {
          throw new CentellaError('E_IO', `cannot write ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
        });
    },
    onInterrupt: (handler) => {
      process.on('SIGINT', handler);
    },
    async exit(status) {
      await Promise.all([flush(stdout, ''), flush(stderr, '')]);
      return process.exit(status);
    },
    exitNow: (status) => process.exit(status),
  };
}

function flush(stream: NodeJS.WriteStream, text: string): Promise<void> {
  // A failure reaches the stream's error listener, which decides.
  return new Promise((resolve) => {
    stream.write(text, () => resolve());
  });
}

/** The version that package.json states. */
export function packageVersion(): string {
  const text = nodeModule('node:fs').readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** "linux x64". */
export function platformName(): string {
  return `${process.platform} ${process.arch}`;
}
