import { Command, CommanderError } from 'commander';
import { packageVersion, type Terminal } from '../platform/terminal.js';
import { addDoctor } from './doctor.js';
import { addEval } from './eval.js';
import { describeFailure, statusOf } from './failure.js';
import { addInspect } from './inspect.js';
import { addRun } from './run.js';
import { exitStatus, type Session } from './session.js';
import { addTokenize } from './tokenize.js';
import { addTune } from './tune.js';

const examples = `Examples:
  centella run model.gguf --prompt "Once upon a time" --max-tokens 200
  centella inspect model.gguf
  centella tokenize model.gguf "Hello"
  centella doctor --check
`;

/** Runs the command that the arguments name; resolves with the exit status. */
export async function runCommandLine(terminal: Terminal): Promise<number> {
  const interrupt = new AbortController();
  terminal.onInterrupt(() => {
    if (interrupt.signal.aborted) terminal.exitNow(exitStatus.interrupted);
    interrupt.abort();
  });
  const session: Session = { terminal, signal: interrupt.signal, status: exitStatus.fine };
  try {
    await makeProgram(session).parseAsync(terminal.args, { from: 'user' });
    return session.status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitStatus.fine : exitStatus.usage;
    const status = statusOf(error, interrupt.signal.aborted);
    terminal.report(status === exitStatus.interrupted ? 'stopped\n' : describeFailure(error));
    return status;
  }
}

function makeProgram(session: Session): Command {
  const { terminal } = session;
  const program = new Command('centella')
    .description('Runs language models on WebGPU, and on the CPU where there is no GPU.')
    .version(packageVersion(), '--version', 'print the version')
    .helpOption('--help', 'show this help')
    .helpCommand(false)
    .addHelpText('before', examples)
    .addHelpText(
      'after',
      '\n`centella COMMAND --help` shows the options of a command, with examples.\nExit status: 0 fine, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.',
    )
    .exitOverride()
    .showHelpAfterError('`--help` shows examples and every option.')
    .configureOutput({
      writeOut: (text) => {
        void terminal.write(text);
      },
      writeErr: (text) => terminal.report(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'centella: ')),
    });
  for (const add of [addRun, addEval, addTokenize, addInspect, addDoctor, addTune]) add(program, session);
  return program;
}
