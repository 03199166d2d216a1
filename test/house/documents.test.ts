import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const text = (path: string): string => readFileSync(path, 'utf8');

/** Every name of the lists `export { ... } from '...'` and `export type { ... } from '...'` of a module, and where it comes from. */
function exportLists(path: string): readonly { readonly name: string; readonly own: string; readonly from: string }[] {
  return [...text(path).matchAll(/^export (?:type )?\{([^}]*)\} from '([^']+)';/gm)].flatMap(([, list = '', from = '']) =>
    list
      .split(',')
      .map((entry) => entry.trim().replace(/^type /, ''))
      .filter((entry) => entry !== '')
      .map((entry) => {
        const [own = '', name = own] = entry.split(' as ');
        return { name, own, from: join(dirname(path), from.replace(/\.js$/, '.ts')) };
      }),
  );
}

/** Whether the declaration of `name` in a module, or in the one that it hands on from, follows a comment. */
function isDocumented(path: string, name: string): boolean {
  const declared = new RegExp(String.raw`(\*/\n)?export (?:declare |abstract |async )*(?:interface|class|type|const|function\*?) ${name}\b`).exec(text(path));
  if (declared !== null) return declared[1] !== undefined;
  const handedOn = exportLists(path).find((entry) => entry.name === name);
  return handedOn !== undefined && isDocumented(handedOn.from, handedOn.own);
}

describe('the public exports', () => {
  it.each(['index', 'llm', 'gguf'])('of src/%s.ts have docstrings', (entry) => {
    const exported = exportLists(join(root, `src/${entry}.ts`));
    expect(exported.length).toBeGreaterThan(10);
    expect(exported.filter(({ from, own }) => !isDocumented(from, own)).map(({ name, from }) => `${name} of ${relative(root, from)}`)).toEqual([]);
  });
});

describe('the documents', () => {
  const documents = [
    'README.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'models/README.md',
    ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`),
  ].filter((name) => name.endsWith('.md'));

  it.each(documents)('%s links to files that are there', (name) => {
    const links = [...text(join(root, name)).matchAll(/\]\(([^)#]+)/g)].map(([, target = '']) => target).filter((target) => !/^[a-z]+:/.test(target));
    expect(links.filter((target) => !existsSync(join(root, dirname(name), target)))).toEqual([]);
  });

  it('the architecture has a row for every room, and names files that are there', () => {
    const architecture = text(join(root, 'docs/architecture.md'));
    const rooms = readdirSync(join(root, 'src'), { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
    const rows = [...architecture.matchAll(/^\| `(\w+)\/` \|/gm)].map(([, room]) => room);
    expect(rows.toSorted()).toEqual(rooms.toSorted());
    const folders = rooms.flatMap((room) =>
      readdirSync(join(root, 'src', room), { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [`${room}/${entry.name}/`] : [])),
    );
    expect(folders.filter((folder) => !architecture.includes(`\`${folder}\``))).toEqual([]);
    // Paths in backquotes with a slash in them, with or without their ending.
    const paths = [...architecture.matchAll(/`((?:[\w-]+\/)+[\w-]+(?:\.\w+)*)`/g)].map(([, path = '']) => path);
    expect(paths.length).toBeGreaterThan(20);
    const found = (path: string): boolean =>
      ['', '.ts', '.mjs', '.test.ts'].some((ending) => ['', 'src'].some((base) => existsSync(join(root, base, path + ending))));
    expect(paths.filter((path) => !found(path))).toEqual([]);
  });
});
