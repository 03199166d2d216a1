interface NodeModules {
  readonly 'node:fs': typeof import('node:fs');
  readonly 'node:fs/promises': typeof import('node:fs/promises');
  readonly 'node:worker_threads': typeof import('node:worker_threads');
  readonly 'node:os': typeof import('node:os');
  readonly 'node:path': typeof import('node:path');
  readonly 'node:url': typeof import('node:url');
}

/**
 * A built-in module of Node (also in Deno and Bun). It goes through `process.getBuiltinModule` and not through `import`, so that bundlers for browsers have
 * nothing to resolve. Only for code that has already found itself in a server runtime.
 */
export function nodeModule<Name extends keyof NodeModules>(name: Name): NodeModules[Name] {
  return process.getBuiltinModule(name) as NodeModules[Name];
}
