// `npm run demo`: a tale from the embedded model. Arguments go to `centella run`; a prompt of the caller's replaces the one here.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const args = process.argv.slice(2);

/** @param {string} name */
function given(name) {
  return args.some((arg) => arg === name || arg.startsWith(`${name}=`));
}

const defaults = [...(given('--prompt') ? [] : ['--prompt', 'Once upon a time']), ...(given('--max-tokens') ? [] : ['--max-tokens', '200'])];
const command = ['dist/cli/main.js', 'run', 'models/tales-7m.Q8_0.gguf', ...defaults, ...args];
const child = spawn(process.execPath, command, { cwd: root, stdio: 'inherit' });
// Ctrl-C reaches the child too, and it is the child that stops cleanly.
process.on('SIGINT', () => {});
child.on('exit', (status) => {
  process.exitCode = status ?? 1;
});
