// Builds dist/: src through the type checker, then bench into dist/bench, which is not published.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The hash of what the last complete build was made from. */
const stampFile = 'dist/.stamp';

/**
 * Files below a folder, as paths relative to it with `/` between, sorted.
 * @param {string} folder
 * @returns {string[]}
 */
function filesBelow(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => (entry.isDirectory() ? filesBelow(join(folder, entry.name)).map((path) => `${entry.name}/${path}`) : [entry.name]))
    .sort();
}

/** @param {string} root */
function sourceHash(root) {
  const hash = createHash('sha256');
  const sources = ['src', 'bench'].flatMap((folder) => filesBelow(join(root, folder)).map((path) => `${folder}/${path}`));
  for (const path of [...sources, 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json', 'scripts/build.mjs']) {
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(root, path)))
      .update('\0');
  }
  return hash.digest('hex');
}

/** @param {string} root */
export function isBuilt(root) {
  const stamp = join(root, stampFile);
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === sourceHash(root);
}

/** @param {string} root */
function compile(root) {
  const { status } = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
  return status === 0;
}

/**
 * Removes what earlier builds wrote for sources that are gone.
 * @param {string} root
 */
function prune(root) {
  const kept = new Set();
  for (const path of filesBelow(join(root, 'src'))) {
    const stem = path.replace(/\.ts$/, '');
    kept.add(`${stem}.js`).add(`${stem}.d.ts`);
  }
  for (const path of filesBelow(join(root, 'dist'))) {
    if (!kept.has(path)) rmSync(join(root, 'dist', path));
  }
}

/**
 * Strips the types of bench/ (the type checker reads it elsewhere) and points its imports of ../src at dist, so that what is measured is what is published.
 * @param {string} root
 */
async function buildBench(root) {
  const ts = (await import('typescript')).default;
  const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true };
  for (const path of filesBelow(join(root, 'bench')).filter((name) => name.endsWith('.ts'))) {
    const { outputText } = ts.transpileModule(readFileSync(join(root, 'bench', path), 'utf8'), { compilerOptions, fileName: path });
    const target = join(root, 'dist/bench', path.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, outputText.replace(/((?:from|import)\s*\(?\s*['"](?:\.\.\/)+)src\//g, '$1'));
  }
}

/** @param {string} root */
async function build(root) {
  const hash = sourceHash(root);
  const compiled = compile(root);
  prune(root);
  await buildBench(root);
  if (compiled) writeFileSync(join(root, stampFile), hash);
  return compiled;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = fileURLToPath(new URL('..', import.meta.url));
  process.exitCode = (await build(root)) ? 0 : 1;
}
