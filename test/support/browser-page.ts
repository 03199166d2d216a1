/** `web/test-page.html` in headless Chromium, served by this process. */

import type { Browser, Page } from 'playwright-core';
import { launchChromium } from './chromium.js';
import { serveRepository } from './static-server.js';

export interface BrowserPage {
  readonly origin: string;
  readonly page: Page;
  /** What the page complained of: uncaught errors and console errors. */
  readonly complaints: readonly string[];
  close(): Promise<void>;
}

/** Opens the test page; its functions are ready to be called by `page.evaluate`. */
export async function openTestPage(): Promise<BrowserPage> {
  const server = await serveRepository();
  const browser: Browser = await launchChromium();
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  await page.goto(`${server.origin}/web/test-page.html`);
  await page.waitForSelector('html[data-ready]', { state: 'attached' });
  return {
    origin: server.origin,
    page,
    complaints,
    close: async () => {
      await browser.close();
      await server.close();
    },
  };
}
