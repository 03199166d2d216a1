/** Headless Chromium with WebGPU on SwiftShader. */

import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';
import { chromiumPath } from '../../scripts/setup/adapters.mjs';

const flags = [
  // Root, as in containers, may not use the sandbox; the pages are this repository's own.
  '--no-sandbox',
  // SwiftShader is a software adapter, which Chromium hides from WebGPU unless asked.
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  // No calls home: a closed network makes each of them a delay.
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
];

/** Starts the Chromium of this machine, with an empty profile. Throws where there is none. */
export function launchChromium(): Promise<Browser> {
  const executablePath = chromiumPath();
  if (executablePath === undefined || !existsSync(executablePath)) {
    throw new Error(`Chromium is not installed (${executablePath ?? 'in no usual place'}): run npm test, or name chromium in CENTELLA_WITHOUT`);
  }
  return chromium.launch({ executablePath, headless: true, args: flags });
}
