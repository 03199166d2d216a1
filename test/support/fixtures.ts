/** Test inputs: those inside the repository, and those that are found outside it through `CENTELLA_FIXTURES`. */

import { existsSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe } from 'vitest';

const repository = fileURLToPath(new URL('../../', import.meta.url));

/** The absolute path of a file of the repository, for example `models/tales-7m.Q8_0.gguf`; throws where it is absent. */
export function repositoryFile(relative: string): string {
  return present(join(repository, relative), `${relative} should be in the repository`);
}

/** The absolute path of a file in `test/fixtures`; throws where it is absent. */
export function fixture(relative: string): string {
  return present(join(repository, 'test/fixtures', relative), `test/fixtures/${relative} should be in the repository`);
}

/**
 * The absolute path of a file under `CENTELLA_FIXTURES`, or undefined where the variable is unset.
 * Throws where the variable is set and the file is absent: a wrong folder must not look like a pass.
 */
export function externalFixture(relative: string): string | undefined {
  const root = process.env['CENTELLA_FIXTURES'];
  if (root === undefined || root === '') return undefined;
  const folder = isAbsolute(root) ? root : resolve(repository, root);
  return present(join(folder, relative), `CENTELLA_FIXTURES is ${root}, so ${relative} should be in it`);
}

/**
 * A `describe` whose cases need files under `CENTELLA_FIXTURES`. `body` gets their absolute paths, in the order of `relatives`.
 * Where the variable is unset the cases are reported as not run, by name: `body` still runs to name them, with paths that lead nowhere, so it may read a
 * file only inside a case or a hook.
 */
export function describeExternal(name: string, relatives: readonly string[], body: (...paths: string[]) => void): void {
  const paths = relatives.map((relative) => externalFixture(relative));
  const found = paths.filter((path) => path !== undefined);
  if (found.length === relatives.length) describe(name, () => body(...found));
  else describe.runIf(false)(`${name} (needs CENTELLA_FIXTURES)`, () => body(...relatives));
}

function present(path: string, complaint: string): string {
  if (!existsSync(path)) throw new Error(`${complaint}, but ${path} is not there`);
  return path;
}
