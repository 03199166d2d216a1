/** Where this code runs. Everything is looked up when asked, never at import. */

import { nodeModule } from './node-module.js';

export type RuntimeName = 'node' | 'deno' | 'bun' | 'browser' | 'unknown';

/** `page`: a browser window; `main`: the first thread of a server runtime; `worker`: any other thread. */
export type RuntimeScope = 'page' | 'main' | 'worker';

/** Where this program runs. */
export interface Runtime {
  readonly name: RuntimeName;
  /** The runtime's own version; absent in browsers. */
  readonly version: string | undefined;
  readonly scope: RuntimeScope;
  /**
   * Whether this thread may block: synchronous file reads, `Atomics.wait`. Never on the web, workers included, so that code written against it runs everywhere.
   * WebGPU itself is asynchronous in every runtime.
   */
  readonly syncAvailable: boolean;
  /** Whether `SharedArrayBuffer` can be sent to workers: always in server runtimes, in browsers only on cross-origin isolated pages. */
  readonly sharedMemory: boolean;
}

interface HostGlobals {
  readonly Deno?: { readonly version?: { readonly deno?: string } };
  readonly Bun?: { readonly version?: string };
  readonly process?: { readonly versions?: { readonly node?: string } };
  readonly window?: unknown;
  readonly document?: unknown;
  readonly WorkerGlobalScope?: unknown;
  readonly crossOriginIsolated?: boolean;
}

/** The running environment; `host` is replaced in tests only. */
export function detectRuntime(host: HostGlobals = globalThis as HostGlobals): Runtime {
  const { name, version } = nameOf(host);
  const web = name === 'browser' || name === 'unknown';
  return {
    name,
    version,
    scope: scopeOf(name, host),
    syncAvailable: !web,
    sharedMemory: typeof SharedArrayBuffer === 'function' && (!web || host.crossOriginIsolated === true),
  };
}

// Deno and Bun also answer as Node, so they come first.
function nameOf(host: HostGlobals): { name: RuntimeName; version: string | undefined } {
  if (host.Deno?.version?.deno !== undefined) return { name: 'deno', version: host.Deno.version.deno };
  if (host.Bun?.version !== undefined) return { name: 'bun', version: host.Bun.version };
  if (host.process?.versions?.node !== undefined) return { name: 'node', version: host.process.versions.node };
  if (host.document !== undefined || host.WorkerGlobalScope !== undefined) return { name: 'browser', version: undefined };
  return { name: 'unknown', version: undefined };
}

function scopeOf(name: RuntimeName, host: HostGlobals): RuntimeScope {
  if (name === 'browser' || name === 'unknown') return host.document === undefined ? 'worker' : 'page';
  if (name === 'deno') return host.WorkerGlobalScope === undefined ? 'main' : 'worker';
  const threads = nodeModule('node:worker_threads');
  return threads.isMainThread ? 'main' : 'worker';
}

/** An environment variable, undefined where it is not set or where there is no environment (browsers). */
export function environmentVariable(name: string): string | undefined {
  return (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env?.[name];
}
