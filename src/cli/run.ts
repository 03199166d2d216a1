import type { Command } from 'commander';
import { type GenerateOptions, resolveOptions } from '../engine/generate-options.js';
import type { Generation, GenerationResult } from '../engine/generation.js';
import type { Model } from '../engine/model.js';
import { expectWritable } from '../platform/files.js';
import { formatLabelled, plural, printableText } from './format.js';
import { type LoadSettings, loadForCommand } from './load.js';
import { addCacheOption, addDeviceOptions, collect, realNumber, wholeNumber } from './options.js';
import { checkProfile, profileRun } from './profile.js';
import { exitStatus, readInput, type Session } from './session.js';

interface RunOptions extends LoadSettings {
  readonly prompt?: string;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly frequencyPenalty?: number;
  readonly presencePenalty?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly json?: true;
  /** A file for the trace, or true for the default one. */
  readonly profile?: string | true;
}

const defaultTrace = 'centella-trace.json';

const examples = `Examples:
  centella run model.gguf --prompt "Once upon a time" --max-tokens 200
  centella run model.gguf --prompt "The fox said" --temperature 0      the likeliest text, the same every time
  printf "Dear reader," | centella run model.gguf --prompt -           the prompt from standard input, as it is
  centella run model.gguf --prompt "Hello" --profile trace.json        where the time goes, by kernel
  centella run model.gguf --prompt "Hello" --stop "." --json           text, token ids and timings as JSON
`;

export function addRun(program: Command, session: Session): void {
  const command = program
    .command('run')
    .summary('write on from a prompt')
    .description('Writes on from a prompt: text to standard output, everything else to standard error.')
    .argument('<model>', 'a GGUF file, its URL, or the first file of a split model')
    .option('--prompt <text>', 'text to go on from; - reads standard input; absent: the token that begins a text alone')
    .option('--max-tokens <n>', 'most tokens to generate (default: until the end or a full context)', wholeNumber(0))
    .option('--temperature <t>', '0 takes the likeliest token, more is bolder (default: 0.8)', realNumber)
    .option('--top-k <k>', 'choose among the k likeliest tokens, 0 among all (default: 40)', wholeNumber(0))
    .option('--top-p <p>', 'choose among the likeliest tokens that sum to p (default: 0.95)', realNumber)
    .option('--min-p <p>', 'leave out tokens less than p times as likely as the likeliest (default: 0.05)', realNumber)
    .option('--repetition-penalty <r>', 'make tokens of the prompt and the text less likely, by a factor (default: 1, which does nothing)', realNumber)
    .option('--frequency-penalty <f>', "subtract f from a token's logit for each time that it was written (default: 0)", realNumber)
    .option('--presence-penalty <p>', 'subtract p from the logit of what was written at all (default: 0)', realNumber)
    .option('--seed <s>', 'the same seed on the same device gives the same text (default: a random one)', wholeNumber(0))
    .option('--stop <text>', 'end before this text; may be given several times', collect)
    .option('--context <n>', 'positions of the context (default: what the model was trained for, at most 4096)', wholeNumber(1))
    .option(
      '--profile [file]',
      `time, bandwidth and FLOP rate of every kernel; a trace for a browser's trace viewer goes to the file (default: ${defaultTrace})`,
    )
    .option('--json', 'one JSON object at the end, instead of the text')
    .addHelpText('before', examples);
  addDeviceOptions(addCacheOption(command)).action((source: string, options: RunOptions) => run(session, source, options));
}

async function run(session: Session, source: string, options: RunOptions): Promise<void> {
  const prompt = options.prompt === '-' ? await readInput(session) : (options.prompt ?? '');
  const settings = generateOptions(session, options);
  // Options out of range are told at once, not after a long load.
  resolveOptions(settings, Number.POSITIVE_INFINITY);
  const trace = options.profile === true ? defaultTrace : options.profile;
  if (trace !== undefined) await expectWritable(trace);
  const model = await loadForCommand(session, source, { ...options, promptTokens: Math.ceil(prompt.length / charactersPerToken) || 1 });
  try {
    if (trace !== undefined) checkProfile(model);
    const generation = model.generate(prompt, settings);
    if (!options.json) await stream(session, generation, options.prompt === '-' ? '' : prompt);
    const result = await generation.result;
    if (options.json) await session.terminal.write(`${JSON.stringify(jsonResult(model, prompt, result))}\n`);
    reportTimings(session, result);
    if (result.finishReason === 'aborted') session.status = exitStatus.interrupted;
    // Who presses Ctrl-C waits for no measurement.
    else if (trace !== undefined) await profileRun(session, model, result, trace);
  } finally {
    model.dispose();
  }
}

/** Of English text, about: enough to know which kernels a prompt needs. */
const charactersPerToken = 4;

function generateOptions(session: Session, options: RunOptions): GenerateOptions {
  const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, frequencyPenalty, presencePenalty, seed, stop } = options;
  const all = { maxTokens, temperature, topK, topP, minP, repetitionPenalty, frequencyPenalty, presencePenalty, seed, stop };
  const given = Object.entries(all).filter(([, value]) => value !== undefined);
  return { ...Object.fromEntries(given), signal: session.signal };
}

/** The text as it comes. Terminals also show the prompt before it and a line break after it, and are not commanded by what a model writes: elsewhere the output is exactly the text. */
async function stream({ terminal }: Session, generation: Generation, prompt: string): Promise<void> {
  if (terminal.outputIsTty && terminal.reportIsTty) terminal.report(`\n${printableText(prompt)}`);
  for await (const { text } of generation) await terminal.write(terminal.outputIsTty ? printableText(text) : text);
  if (terminal.outputIsTty) await terminal.write('\n');
  terminal.report('\n');
}

function reportTimings({ terminal }: Session, { finishReason, timings }: GenerationResult): void {
  const rate = (perSecond: number): string => (perSecond > 0 ? `, ${perSecond.toFixed(1)} tokens/s` : '');
  terminal.report(
    formatLabelled([
      ['prompt', `${plural(timings.promptTokens, 'token')}${rate(timings.promptTokensPerSecond)}`],
      ['generation', `${plural(timings.generatedTokens, 'token')}${rate(timings.generationTokensPerSecond)}`],
      ['ended by', ends[finishReason]],
    ]),
  );
}

const ends: { readonly [R in GenerationResult['finishReason']]: string } = {
  eos: "the text's end",
  stop: 'a stop text',
  length: '--max-tokens',
  context: 'a full context: a larger --context has room for more',
  aborted: 'Ctrl-C',
};

function jsonResult(model: Model, prompt: string, { text, tokens, finishReason, timings }: GenerationResult): object {
  return {
    text,
    prompt_tokens: model.encodePrompt(prompt),
    tokens,
    finish_reason: finishReason,
    backend: model.backend.kind,
    adapter: model.backend.name,
    timings: {
      load_ms: model.loadTimings.totalMs,
      prompt_ms: timings.promptMs,
      prompt_tokens_per_second: timings.promptTokensPerSecond,
      generation_ms: timings.generationMs,
      generation_tokens_per_second: timings.generationTokensPerSecond,
    },
  };
}
