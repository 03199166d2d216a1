import { AbortedError } from '../core/errors.js';
import type { Terminal } from '../platform/terminal.js';
import { printable } from './format.js';

/** Exit statuses: a shell script can tell them apart. */
export const exitStatus = { fine: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** What a command works with. */
export interface Session {
  readonly terminal: Terminal;
  /** Fires at the first Ctrl-C. */
  readonly signal: AbortSignal;
  /** Set by a command that ends without an error and yet not fine. */
  status: number;
}

export function warn(session: Session, message: string): void {
  session.terminal.report(`warning: ${printable(message)}\n`);
}

/** Work that cannot be stopped, given up at the first Ctrl-C: the process ends soon after. @throws AbortedError */
export function untilInterrupted<T>({ signal }: Session, what: string, work: Promise<T>): Promise<T> {
  const interrupt = new Promise<never>((_, reject) => {
    const stop = (): void => reject(new AbortedError(what, signal.reason));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  return Promise.race([work, interrupt]);
}

/** Standard input as text, as it is. */
export function readInput(session: Session): Promise<string> {
  return untilInterrupted(session, 'reading standard input', session.terminal.readInput());
}
