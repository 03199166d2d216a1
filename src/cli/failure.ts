/** From an error to what a person reads: what happened, where, and what to do next. */

import { AbortedError, ArgumentError, CentellaError, type ErrorCode, FormatError } from '../core/errors.js';
import { environmentVariable } from '../platform/runtime.js';
import { printable } from './format.js';
import { exitStatus } from './session.js';

const fileAdvice = 'the file is damaged, incomplete or no GGUF model: download it again, or convert the model again';
const defectAdvice = 'this is a defect of Centella: run the command again with CENTELLA_DEBUG=1 and report what it prints';
const deviceAdvice = "`centella doctor --check` tells whether this device's results can be trusted; --device cpu does without it";

/** Next steps by code, where the message cannot know that it is read at a command line. */
const advice: { readonly [C in ErrorCode]?: string } = {
  E_IO: 'check the path or address, and that it may be read or written',
  E_NO_WEBGPU: '--device cpu works without WebGPU; `centella doctor` shows what this machine has',
  E_NO_ADAPTER: '--device cpu works without an adapter; `centella doctor` shows what this machine has',
  E_DEVICE: deviceAdvice,
  E_SHADER: deviceAdvice,
  E_NUMERICAL: deviceAdvice,
  E_DEVICE_LOST: 'run the command again; if the device is lost again, --device cpu does without it',
  E_OUT_OF_MEMORY: 'take a shorter --context or a smaller model; `centella inspect` tells what a model needs',
  E_CONTEXT: 'give a larger --context, or fewer tokens',
  E_UNSUPPORTED: '`centella inspect` shows what a file holds, `centella doctor` what this machine has',
  E_GRAPH: defectAdvice,
  E_PLAN: defectAdvice,
  E_SHAPE_MISMATCH: defectAdvice,
};

export function describeFailure(error: unknown): string {
  const lines = [`centella: ${headline(error)}`];
  const place = error instanceof FormatError ? placeOf(error) : '';
  if (place !== '') lines.push(`  where: ${place}`);
  const next = adviceFor(error);
  if (next !== undefined) lines.push(`  next: ${next}`);
  if (environmentVariable('CENTELLA_DEBUG') === '1' && error instanceof Error) lines.push(stackOf(error));
  // A name from a file may be in any of it.
  return `${lines.join('\n').split('\n').map(printable).join('\n')}\n`;
}

function headline(error: unknown): string {
  if (error instanceof ArgumentError) return `${asOption(error)} [${error.code}]`;
  if (error instanceof CentellaError) return `${error.message} [${error.code}]`;
  return `something went wrong that Centella did not expect: ${error instanceof Error ? error.message : String(error)}`;
}

/** The library calls an option by its name there ("topP must be"): here it is `--top-p`. */
function asOption({ argument, message }: ArgumentError): string {
  if (!message.startsWith(`${argument} `)) return message;
  return `--${argument.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}${message.slice(argument.length)}`;
}

function placeOf({ offset, key, tensor }: FormatError): string {
  const parts = [offset === undefined ? '' : `byte ${offset}`, key === undefined ? '' : `key ${key}`, tensor === undefined ? '' : `tensor ${tensor}`];
  return parts.filter((part) => part !== '').join(', ');
}

function adviceFor(error: unknown): string | undefined {
  if (error instanceof FormatError) return fileAdvice;
  return error instanceof CentellaError ? advice[error.code] : defectAdvice;
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${stackOf(error.cause)}` : '';
  return `${error.stack ?? error.message}${cause}`;
}

/** The exit status for an error; `interrupted` where Ctrl-C was pressed. */
export function statusOf(error: unknown, interrupted: boolean): number {
  if (interrupted && error instanceof AbortedError) return exitStatus.interrupted;
  return error instanceof CentellaError && error.code === 'E_ARGUMENT' ? exitStatus.usage : exitStatus.failed;
}
