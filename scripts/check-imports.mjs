// Checks the imports of src/ against the room table below (docs/architecture.md says why): `node scripts/check-imports.mjs [ROOT]`, ROOT holding src/.
// It prints each offence as file:line and ends with status 1 if there is one.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/** The rooms that each room may import, beside itself. @type {Record<string, string>} */
export const rooms = {
  core: '',
  platform: 'core',
  quant: 'core',
  ops: 'quant core',
  graph: 'ops core',
  plan: 'graph ops core',
  kernels: 'ops quant core',
  gpu: 'platform core',
  cpu: 'platform ops quant core',
  runtime: 'plan graph kernels gpu cpu platform ops core',
  compute: 'runtime plan graph kernels gpu cpu quant ops core',
  formats: 'platform quant core',
  hub: 'formats platform core',
  text: 'formats platform core',
  model: 'graph runtime formats kernels quant ops core',
  engine: 'model text runtime gpu hub formats platform ops core',
  train: 'model graph runtime text formats quant ops core',
  server: 'engine platform core',
  cli: 'engine model runtime server train hub gpu cpu kernels formats text platform ops core',
};

/** Published packages that a room may import; platform may import any. @type {Record<string, readonly string[]>} */
const packages = { cli: ['commander'] };

/** Files directly in src: the package's entry points, which may import any room. */
const entryPoints = ['index.ts', 'llm.ts', 'gguf.ts'];

/**
 * @typedef {object} Import
 * @property {string} specifier
 * @property {number} line from 1
 * @property {'static' | 'types' | 'bare' | 'dynamic'} kind `bare`: for its side effects alone
 */

/** @param {ts.ImportClause | undefined} clause */
function clauseKind(clause) {
  if (clause === undefined) return 'bare';
  return clause.isTypeOnly ? 'types' : 'static';
}

/**
 * Every import of a file: static, type-only, re-export and dynamic.
 * @param {string} text
 * @returns {Import[]}
 */
export function importsOf(text) {
  const source = ts.createSourceFile('file.ts', text, ts.ScriptTarget.Latest, true);
  /** @type {Import[]} */
  const found = [];
  /**
   * @param {ts.Node | undefined} specifier
   * @param {Import['kind']} kind
   */
  function add(specifier, kind) {
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) return;
    found.push({ specifier: specifier.text, line: source.getLineAndCharacterOfPosition(specifier.getStart()).line + 1, kind });
  }
  /** @param {ts.Node} node */
  function visit(node) {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, clauseKind(node.importClause));
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly ? 'types' : 'static');
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node.argument.literal, 'types');
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) add(node.arguments[0], 'dynamic');
    ts.forEachChild(node, visit);
  }
  visit(source);
  return found;
}

/** @param {string} path relative to src */
function roomOf(path) {
  return path.includes('/') ? path.slice(0, path.indexOf('/')) : undefined;
}

/**
 * @param {string} path relative to src
 * @param {Import} entry
 * @param {ReadonlyMap<string, string>} files
 * @returns {string | undefined} what is wrong
 */
function offence(path, entry, files) {
  const { specifier } = entry;
  const room = roomOf(path);
  if (entry.kind === 'bare') return `imports '${specifier}' for its side effects: importing a module must have none`;
  if (specifier.startsWith('node:') || !specifier.startsWith('.')) {
    const allowed = room === 'platform' || (room !== undefined && packages[room]?.includes(specifier));
    return allowed ? undefined : `imports '${specifier}': only platform may import what is not Centella's own`;
  }
  const target = posix.join(posix.dirname(path), specifier).replace(/\.js$/, '.ts');
  if (target.startsWith('../')) return `imports '${specifier}', outside src`;
  if (!files.has(target)) return `imports '${specifier}', and there is no src/${target}`;
  const targetRoom = roomOf(target);
  if (room === undefined || room === targetRoom) return undefined;
  if (targetRoom === undefined) return `imports the entry point '${specifier}'`;
  return (rooms[room] ?? '').split(' ').includes(targetRoom) ? undefined : `imports '${specifier}': ${room} may import ${rooms[room] || 'nothing'}`;
}

/**
 * The first cycle that a depth-first walk meets, as a list of files that ends where it began.
 * @param {ReadonlyMap<string, readonly string[]>} edges
 * @returns {string[] | undefined}
 */
function findCycle(edges) {
  const done = new Set();
  /** @type {string[]} */
  const path = [];
  /**
   * @param {string} file
   * @returns {string[] | undefined}
   */
  function walk(file) {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return undefined;
    path.push(file);
    for (const next of edges.get(file) ?? []) {
      const cycle = walk(next);
      if (cycle !== undefined) return cycle;
    }
    path.pop();
    done.add(file);
    return undefined;
  }
  for (const file of edges.keys()) {
    const cycle = walk(file);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

/**
 * @param {ReadonlyMap<string, string>} files texts by their paths relative to src, with `/` between
 * @returns {string[]} offences, each `src/file:line: what is wrong`
 */
export function checkImports(files) {
  const offences = [];
  /** @type {Map<string, string[]>} */
  const edges = new Map();
  for (const [path, text] of files) {
    const room = roomOf(path);
    if (room === undefined ? !entryPoints.includes(path) : !(room in rooms)) offences.push(`src/${path}:1: is in no room, nor an entry point`);
    const targets = [];
    for (const entry of importsOf(text)) {
      const problem = offence(path, entry, files);
      if (problem !== undefined) offences.push(`src/${path}:${entry.line}: ${problem}`);
      if (entry.specifier.startsWith('.')) targets.push(posix.join(posix.dirname(path), entry.specifier).replace(/\.js$/, '.ts'));
    }
    edges.set(path, targets);
  }
  const cycle = findCycle(edges);
  if (cycle !== undefined) offences.push(`src/${cycle[0]}:1: is in a cycle of imports: ${cycle.join(' -> ')}`);
  return offences;
}

/**
 * @param {string} folder
 * @param {string} prefix
 * @returns {[string, string][]}
 */
function readSources(folder, prefix = '') {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = `${prefix}${entry.name}`;
    if (entry.isDirectory()) return readSources(join(folder, entry.name), `${path}/`);
    return entry.name.endsWith('.ts') ? [/** @type {[string, string]} */ ([path, readFileSync(join(folder, entry.name), 'utf8')])] : [];
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), '..');
  const source = join(root, 'src');
  const offences = existsSync(source) ? checkImports(new Map(readSources(source))) : [`${source} is not there`];
  for (const line of offences) console.error(line);
  if (offences.length > 0) process.exitCode = 1;
}
