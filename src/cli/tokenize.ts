import type { Command } from 'commander';
import { ArgumentError } from '../core/errors.js';
import { openGguf } from '../formats/gguf/index.js';
import { loadTokenizer, type Tokenizer } from '../text/index.js';
import { printableText } from './format.js';
import { tokenIds } from './options.js';
import { readInput, type Session, warn } from './session.js';

interface TokenizeOptions {
  readonly bos?: true;
  readonly special?: true;
  readonly decode?: string;
}

const examples = `Examples:
  centella tokenize model.gguf "Once upon a time"
  centella tokenize model.gguf --bos --special "<|im_start|>user"      BOS first, control tokens read as such
  centella tokenize model.gguf - < chapter.txt                         standard input, as it is
  centella tokenize model.gguf --decode "9038 2501 263 931"            text of token ids
  centella tokenize model.gguf -- "--text that begins with a dash"
`;

export function addTokenize(program: Command, session: Session): void {
  program
    .command('tokenize')
    .summary('text to token ids, and back')
    .description('Prints the token ids of a text, separated by spaces. Files with a vocabulary and no weights will do.')
    .argument('<model>', 'a GGUF file or its URL')
    .argument('[text]', '- reads standard input')
    .option('--bos', 'put the token that begins a text first')
    .option('--special', 'read the texts of control tokens as those tokens; with --decode, show them')
    .option('--decode <ids>', 'print the text of token ids instead; - reads them from standard input')
    .addHelpText('before', examples)
    .action((source: string, text: string | undefined, options: TokenizeOptions) => tokenize(session, source, text, options));
}

async function tokenize(session: Session, source: string, text: string | undefined, options: TokenizeOptions): Promise<void> {
  if ((text === undefined) === (options.decode === undefined))
    throw new ArgumentError('text', 'give either a text (- for standard input) or --decode with token ids');
  if (options.decode !== undefined && options.bos) throw new ArgumentError('bos', '--bos belongs to a text, and --decode has none: leave one of the two out');
  const { terminal, signal } = session;
  const tokenizer = await openTokenizer(session, source, signal);
  const special = options.special === true;
  const input = async (given: string): Promise<string> => (given === '-' ? readInput(session) : given);
  if (options.decode !== undefined) {
    const decoded = tokenizer.decode(tokenIds(await input(options.decode)), { special });
    return terminal.write(terminal.outputIsTty ? `${printableText(decoded)}\n` : decoded);
  }
  const ids = tokenizer.encode(await input(text ?? ''), { bos: options.bos === true, special });
  await terminal.write(`${ids.join(' ')}\n`);
}

async function openTokenizer(session: Session, source: string, signal: AbortSignal): Promise<Tokenizer> {
  const file = await openGguf(source, { signal });
  try {
    const tokenizer = loadTokenizer(file);
    for (const message of [...file.warnings, ...tokenizer.warnings]) warn(session, message);
    return tokenizer;
  } finally {
    await file.close();
  }
}
