import type { Terminal } from '../platform/terminal.js';

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
  session.terminal.report(`warning: ${message}\n`);
}
