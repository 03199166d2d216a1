// Brings a bare clone to where a command can run: `node scripts/setup.mjs demo | test`. Plain JavaScript on Node's own modules, since nothing is installed
// yet. What it installs it says; CENTELLA_NO_INSTALL=1 forbids installing.
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** @param {string} line */
function say(line) {
  process.stderr.write(`setup: ${line}\n`);
}

function requireNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) throw new Error(`Centella needs Node 20.19 or later, and this is ${process.versions.node}`);
}

try {
  const goal = process.argv[2];
  if (goal !== 'demo' && goal !== 'test') throw new Error(`wanted 'demo' or 'test', got '${goal ?? ''}'`);
  requireNode();
  const { ensureBuild, ensurePackages } = await import('./setup/node.mjs');
  ensurePackages(root, say);
  ensureBuild(root, say);
  if (goal === 'test') {
    const { ensureSystem } = await import('./setup/system.mjs');
    ensureSystem(say);
  }
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
