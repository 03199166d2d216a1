/** Loading a model for a command: progress for a person, warnings, and what runs it. */

import { type LoadOptions, loadModel } from '../engine/load.js';
import type { Model } from '../engine/model.js';
import type { CacheType } from '../model/decoder-graph.js';
import { formatBytes, formatLabelled, formatSeconds } from './format.js';
import { backendOptions, type DeviceOptions } from './options.js';
import { type Session, warn } from './session.js';

export interface LoadSettings extends DeviceOptions {
  readonly context?: number;
  readonly kv?: CacheType;
  /** About how many tokens the first prompt has. */
  readonly promptTokens?: number;
}

/** Loads and says where the model runs, and why. */
export async function loadForCommand(session: Session, source: string, settings: LoadSettings): Promise<Model> {
  const bar = progressBar(session);
  const options: LoadOptions = {
    ...backendOptions(settings),
    ...(settings.context === undefined ? {} : { contextLength: settings.context }),
    ...(settings.kv === undefined ? {} : { cacheType: settings.kv }),
    ...(settings.promptTokens === undefined ? {} : { promptTokens: settings.promptTokens }),
    signal: session.signal,
    onWarning: (message) => {
      bar.clear();
      warn(session, message);
    },
    onProgress: ({ loadedBytes, totalBytes }) =>
      bar.show(totalBytes === 0 ? 1 : loadedBytes / totalBytes, `${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`),
  };
  let model: Model;
  try {
    model = await loadModel(source, options);
  } finally {
    bar.clear();
  }
  reportBackend(session, model);
  return model;
}

function reportBackend({ terminal }: Session, { backend, loadTimings }: Model): void {
  const { kind, name, reason, checks } = backend;
  terminal.report(
    formatLabelled([
      ['backend', kind === 'cpu' ? `cpu (${name})` : `webgpu (${checks === 'host' ? "the host's checks" : checks})`],
      ...(kind === 'cpu' ? [] : [['adapter', name] as const]),
      ['chosen', reason],
      ['load', `${formatSeconds(loadTimings.totalMs)}, ${formatBytes(loadTimings.weightBytes)} of weights`],
    ]),
  );
}

interface ProgressBar {
  /** @param fraction done, 0 to 1 */
  show(fraction: number, text: string): void;
  clear(): void;
}

const barWidth = 30;
/** Between two drawings; a terminal shows no more. */
const barIntervalMs = 50;

/** One line of standard error that is drawn again and again; nothing where that is no terminal. */
export function progressBar({ terminal }: Session): ProgressBar {
  let drawn = 0;
  return {
    show(fraction, text) {
      const now = performance.now();
      if (!terminal.reportIsTty || now - drawn < barIntervalMs) return;
      drawn = now;
      const filled = Math.round(barWidth * fraction);
      terminal.report(`\r[${'='.repeat(filled)}${' '.repeat(barWidth - filled)}] ${text}\u001b[K`);
    },
    clear() {
      if (drawn > 0) terminal.report('\r\u001b[K');
      drawn = 0;
    },
  };
}
