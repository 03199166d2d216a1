/** The tensors that all runs of a decoder share. */

import { bytesOf } from '../core/bytes.js';
import type { Graph } from '../graph/graph.js';
import { stateWords } from '../ops/state.js';
import type { TensorStore } from '../runtime/tensors.js';
import type { DecoderConfig } from './decoder-config.js';
import { decoderNames } from './decoder-graph.js';
import { ropeTable } from './rope-table.js';

export interface DecoderExtent {
  /** Of the cache. */
  readonly positions: number;
  /** Of the largest run. */
  readonly rows: number;
  /** Values of `rope_freqs`. */
  readonly ropeFactors?: Float32Array;
}

/** Room for every weight and state of the decoder (all its graphs have the same), and what is known before the weights are. */
export async function makeTensors(tensors: TensorStore, graph: Graph | undefined, config: DecoderConfig, extent: DecoderExtent): Promise<void> {
  for (const node of graph?.nodes ?? []) {
    if (node.op === 'param') await tensors.allocate(node.params.name, node.type, node.params.name === decoderNames.ropeTable ? 'constants' : 'weights');
    if (node.op === 'state') await tensors.allocate(node.params.name, node.type, node.params.name === decoderNames.session ? 'state' : 'kv');
  }
  await fillTensors(tensors, config, extent);
}

/** A session state that may be run from, and the table of turns. */
export async function fillTensors(tensors: TensorStore, config: DecoderConfig, { positions, rows, ropeFactors: factors }: DecoderExtent): Promise<void> {
  // Padding rows are gathered too: their ids have to be rows of the embedding from the first run on.
  await tensors.write(decoderNames.session, new Uint8Array(stateWords(rows) * 4));
  const { rotated, ropeBase: base, ropePositionScale: positionScale } = config;
  const table = ropeTable({ positions, rotated, base, positionScale, ...(factors ? { factors } : {}) });
  await tensors.write(decoderNames.ropeTable, bytesOf(table));
}
