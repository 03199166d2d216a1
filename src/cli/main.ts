#!/usr/bin/env node
import { openTerminal } from '../platform/terminal.js';
import { runCommandLine } from './program.js';

const terminal = openTerminal();
// Dawn keeps the event loop alive for seconds after a device's last work, so the end has to be said.
await terminal.exit(await runCommandLine(terminal));
