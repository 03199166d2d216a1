import { afterAll, beforeAll, expect } from 'vitest';
import type { Backend } from '../../src/runtime/backend.js';

/** One backend for all cases of a suite, which leave nothing in the memory of activations. Gives what tells it to a case. */
export function suiteBackend(open: () => Promise<Backend>): () => Backend {
  let backend: Backend;
  beforeAll(async () => {
    backend = await open();
  });
  afterAll(() => {
    expect(backend.ledger().byClass.arena.bytes).toBe(0);
    backend.dispose();
  });
  return () => backend;
}
