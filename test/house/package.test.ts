import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { importsOf } from '../../scripts/check-imports.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const entryPoints = ['index.js', 'llm.js', 'gguf.js'];
const manifest: { dependencies: Record<string, string> } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const subpaths = ['centella', 'centella/llm', 'centella/gguf'];

/** An empty project in which the packed package is installed. */
let folder = '';
let packed: string[] = [];

function run(command: string, args: readonly string[], cwd: string): string {
  const result = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: 100_000 });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')} ended with status ${result.status}:\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

function write(name: string, content: string | object): void {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
}

/** Packs a package of this machine into `folder`; the paths of the tarballs. */
function pack(path: string): { filename: string; files: { path: string }[] }[] {
  return JSON.parse(run('npm', ['pack', path, '--json', '--ignore-scripts', '--pack-destination', folder], root));
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'centella-package-'));
  const report = pack(root);
  // The dependencies are those installed here, so that the test needs no network.
  const dependencies = Object.keys(manifest.dependencies).flatMap((name) => pack(join(root, 'node_modules', name)));
  packed = report.flatMap((entry) => entry.files.map((file) => file.path));
  write('package.json', { name: 'consumer', private: true, type: 'module' });
  run(
    'npm',
    ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', ...[...report, ...dependencies].map((entry) => `./${entry.filename}`)],
    folder,
  );
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe('the packed package', () => {
  it('holds the build and the documents, and nothing of the workshop', () => {
    const others = packed.filter((path) => !/^dist\/.+(\.js|\.d\.ts)$/.test(path));
    expect(others.sort()).toEqual(['LICENSE', 'README.md', 'SECURITY.md', 'package.json']);
    expect(packed.filter((path) => path.startsWith('dist/bench/'))).toEqual([]);
  });

  it('brings the one package that its command line needs, and no other', () => {
    expect(readdirSync(join(folder, 'node_modules')).filter((name) => !name.startsWith('.'))).toEqual(['centella', 'commander']);
    expect(manifest.dependencies).toEqual({ commander: expect.stringMatching(/^\d+\.\d+\.\d+$/) });
  });

  it('imports every subpath with no side effect', () => {
    write(
      'import.mjs',
      `const state = () => JSON.stringify([Reflect.ownKeys(globalThis).map(String), process.eventNames().map(String), process.getActiveResourcesInfo(), process.env]);
      const before = state();
      const exported = [];
      for (const path of ${JSON.stringify(subpaths)}) exported.push(Object.keys(await import(path)).length > 0);
      console.log(JSON.stringify({ exported, changed: state() !== before }));`,
    );
    expect(JSON.parse(run(process.execPath, ['import.mjs'], folder))).toEqual({ exported: subpaths.map(() => true), changed: false });
  });

  it('starts its command', () => {
    expect(run(join(folder, 'node_modules/.bin/centella'), ['--help'], folder)).toContain('centella run');
  });

  it.each(['NodeNext', 'Preserve'])('type-checks a strict consumer without the types of Node (module %s)', (module) => {
    write(
      `${module}/consumer.ts`,
      `import * as centella from 'centella';
      import * as gguf from 'centella/gguf';
      import { loadModel } from 'centella/llm';
      export const faces = [centella, gguf];
      export async function tell(signal: AbortSignal): Promise<string> {
        const model = await loadModel('model.gguf', { device: 'cpu', signal, onWarning: () => undefined });
        const generation = model.generate('Once', { maxTokens: 8, temperature: 0, signal });
        let text = '';
        for await (const part of generation) text += part.text;
        const { finishReason, tokens } = await generation.result;
        await model.dispose();
        return \`\${text} \${finishReason} \${tokens.length}\`;
      }`,
    );
    write(`${module}/tsconfig.json`, {
      compilerOptions: {
        target: 'ES2023',
        // The WebGPU types are those of TypeScript's DOM library.
        lib: ['ES2023', 'DOM', 'DOM.AsyncIterable', 'ESNext.Disposable'],
        types: [],
        module,
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        noEmit: true,
      },
      files: ['consumer.ts'],
    });
    run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', `${module}/tsconfig.json`], folder);
  });
});

describe('the build', () => {
  /** What importing an entry point loads: its static imports, followed. */
  function loadedBy(entry: string): Map<string, string[]> {
    const loaded = new Map<string, string[]>();
    const queue = [join(root, 'dist', entry)];
    for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
      if (loaded.has(path)) continue;
      const specifiers = importsOf(readFileSync(path, 'utf8'))
        .filter((found) => found.kind !== 'dynamic')
        .map((found) => found.specifier);
      loaded.set(path, specifiers);
      for (const specifier of specifiers) if (specifier.startsWith('.')) queue.push(join(dirname(path), specifier));
    }
    return loaded;
  }

  it.each(entryPoints)('lets a browser load %s: whatever it imports is a file of its own', (entry) => {
    expect(existsSync(join(root, 'dist', entry))).toBe(true);
    const foreign = [...loadedBy(entry)].flatMap(([path, specifiers]) => specifiers.filter((name) => !name.startsWith('.')).map((name) => `${path}: ${name}`));
    expect(foreign).toEqual([]);
  });
});
