import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BrowserPage, openTestPage } from '../support/browser-page.js';

describe('a page in Chromium', () => {
  let opened: BrowserPage;
  beforeAll(async () => {
    opened = await openTestPage();
  });
  afterAll(() => opened.close());

  it('imports the library without a side effect, and has WebGPU and WebAssembly', async () => {
    const found: { exports: number; newGlobals: number } = await opened.page.evaluate('inspect()');
    expect(found).toMatchObject({ newGlobals: 0, adapter: 'swiftshader', wasm: true, isolated: true });
    expect(found.exports).toBeGreaterThan(0);
    expect(opened.complaints).toEqual([]);
  });
});
