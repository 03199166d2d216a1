import type { Command } from 'commander';
import { formatLabelled, formatSeconds } from './format.js';
import { type LoadSettings, loadForCommand } from './load.js';
import { addDeviceOptions, tokenIdsOption, wholeNumber } from './options.js';
import { type Session, untilInterrupted } from './session.js';

interface EvalOptions extends LoadSettings {
  readonly ids: readonly number[];
  readonly logits: string;
}

const examples = `Examples:
  centella eval model.gguf --ids 1,15043,29892 --logits logits.f32     float32, little-endian, [ids, vocabulary]
  centella eval model.gguf --ids "$(centella tokenize model.gguf --bos Hello)" --logits logits.f32 --device cpu
`;

export function addEval(program: Command, session: Session): void {
  const command = program
    .command('eval')
    .summary('write the logits after each of some token ids')
    .description('Runs token ids through a model and writes the logits after each of them to a file, to compare engines with each other.')
    .argument('<model>', 'a GGUF file, its URL, or the first file of a split model')
    .requiredOption('--ids <ids>', 'token ids between commas or spaces', tokenIdsOption)
    .requiredOption('--logits <file>', 'where float32 little-endian logits [ids, vocabulary] go')
    .option('--context <n>', 'positions of the context (default: what the model was trained for, at most 4096)', wholeNumber(1))
    .addHelpText('before', examples);
  addDeviceOptions(command).action((source: string, options: EvalOptions) => evaluate(session, source, options));
}

async function evaluate(session: Session, source: string, { ids, logits: path, ...settings }: EvalOptions): Promise<void> {
  const model = await loadForCommand(session, source, settings);
  try {
    const started = performance.now();
    const logits = await untilInterrupted(session, 'the evaluation', model.evaluate(ids));
    const elapsed = performance.now() - started;
    await session.terminal.writeFile(path, littleEndian(logits));
    const shape = `float32 [${ids.length}, ${model.config.vocabulary}]`;
    session.terminal.report(formatLabelled([['logits', `${shape} in ${formatSeconds(elapsed)}: ${path}`]]));
  } finally {
    model.dispose();
  }
}

/** The bytes of f32 values as a file has them on every machine. */
function littleEndian(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [index, value] of values.entries()) view.setFloat32(index * 4, value, true);
  return bytes;
}
