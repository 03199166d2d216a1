import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadModel } from '../../src/llm.js';
import { type BrowserPage, openTestPage } from '../support/browser-page.js';
import { repositoryFile } from '../support/fixtures.js';

const modelPath = 'models/tales-7m.Q8_0.gguf';
const maxTokens = 16;

interface Generated {
  readonly tokens: readonly number[];
  readonly text: string;
}

/** The same greedy tokens, made in this process. */
async function generateInNode(): Promise<Generated> {
  const model = await loadModel(repositoryFile(modelPath), { device: 'cpu' });
  try {
    const { tokens, text } = await model.generate('Once upon a time', { maxTokens, temperature: 0 }).result;
    return { tokens: [...tokens], text };
  } finally {
    await model.dispose();
  }
}

describe('the embedded model in Chromium', () => {
  let opened: BrowserPage;
  let inNode: Generated;
  beforeAll(async () => {
    opened = await openTestPage();
    inNode = await generateInNode();
  });
  afterAll(() => opened.close());

  it.each(['webgpu', 'cpu'])("writes Node's tokens on %s", async (device) => {
    const url = `${opened.origin}/${modelPath}`;
    const inPage: Generated = await opened.page.evaluate(`generate(${JSON.stringify(url)}, '${device}', ${maxTokens})`);
    expect(inPage).toEqual(inNode);
    expect(inPage.tokens).toHaveLength(maxTokens);
    expect(opened.complaints).toEqual([]);
  });
});
