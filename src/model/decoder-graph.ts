import { dtypes } from '../core/dtype.js';
import { GraphError, UnsupportedError } from '../core/errors.js';
import type { TensorType } from '../core/tensor.js';
import { GraphBuilder } from '../graph/builder.js';
import type { Graph, NodeId } from '../graph/graph.js';
import { stateWord, stateWords } from '../ops/state.js';
import type { DecoderConfig } from './decoder-config.js';
import { tensorNames } from './tensors.js';

/** Types of the KV cache. q8_0: signed bytes, with an f16 scale for 32 elements of a head each. */
export type CacheType = 'f32' | 'f16' | 'q8_0';

/** The tensor that holds the keys or the values of a layer. @throws UnsupportedError for q8_0 where a head is not whole blocks. */
export function cacheTensor({ kvHeads, headWidth }: DecoderConfig, cacheType: CacheType, contextLength: number): TensorType {
  if (cacheType === 'q8_0' && headWidth % dtypes.q8_planes.block !== 0)
    throw new UnsupportedError(`a q8_0 cache has blocks of ${dtypes.q8_planes.block} elements, heads of ${headWidth} are not whole blocks: use an f16 cache`);
  return { dtype: cacheType === 'q8_0' ? 'q8_planes' : cacheType, shape: [kvHeads, contextLength, headWidth] };
}

export interface DecoderGraphOptions {
  /** Rows of one run: 1 decodes, more prefill. */
  readonly rows: number;
  /** Positions that the KV cache holds. */
  readonly contextLength: number;
  /** Rows that the session state has room for: the largest `rows` of all graphs that share it. */
  readonly maxRows: number;
  readonly cacheType: CacheType;
  /** 'next': logits of the last live row, and the most likely token chosen and fed back on the device. 'all': logits of every row, nothing chosen. */
  readonly logits: 'next' | 'all';
}

/** Names of the leaves and outputs that are not weights. */
export const decoderNames = {
  session: 'session',
  sampling: 'sampling',
  ropeTable: 'rope_table',
  keys: (layer: number): string => `blk.${layer}.keys`,
  values: (layer: number): string => `blk.${layer}.values`,
  logits: 'logits',
  hidden: 'hidden',
} as const;

/**
 * One run of a decoder-only transformer over `rows` token ids held in the session state: embedding, blocks of attention and feed-forward, norm, head. `weights` gives each tensor's type.
 */
export function decoderGraph(config: DecoderConfig, weights: ReadonlyMap<string, TensorType>, options: DecoderGraphOptions): Graph {
  const { rows, contextLength } = options;
  const g = new GraphBuilder();
  const session = g.state(decoderNames.session, { dtype: 'u32', shape: [stateWords(options.maxRows)] });
  const table = g.param(decoderNames.ropeTable, { dtype: 'f32', shape: [contextLength, config.rotated / 2, 2] });
  const weight = weightLookup(g, weights);
  const ids = g.narrow(session, stateWord.ids, rows, 'ids');
  const embedding = weight(tensorNames.embedding);

  let x = g.gatherRows(embedding, ids, 'embed');
  for (let layer = 0; layer < config.layers; layer++) {
    const block: Block = { g, config, options, session, table, layer, weight: (part) => weight(tensorNames.layer(layer, part)) };
    x = blockPart(block, x);
  }

  const wanted = options.logits === 'next' ? g.add('lastRow', {}, [x, session], 'last_row') : x;
  const normed = g.rmsNorm(wanted, weight(tensorNames.outputNorm), config.eps, 'output_norm');
  const head = weights.has(tensorNames.output) ? weight(tensorNames.output) : embedding;
  const logits = g.linear(normed, head, { rounded: true }, 'output');
  g.output(decoderNames.logits, logits);
  if (options.logits === 'next') g.add('chooseNext', {}, [session, logits], 'choose');
  return g.build();
}

/** One block alone: the output `hidden` from the input `hidden`, f32 [rows, width] both. It shares weights, caches and session state with the graphs of the whole decoder. */
export function decoderLayerGraph(config: DecoderConfig, weights: ReadonlyMap<string, TensorType>, layer: number, options: BlockOptions): Graph {
  const g = new GraphBuilder();
  const session = g.state(decoderNames.session, { dtype: 'u32', shape: [stateWords(options.maxRows)] });
  const table = g.param(decoderNames.ropeTable, { dtype: 'f32', shape: [options.contextLength, config.rotated / 2, 2] });
  const weight = weightLookup(g, weights);
  const x = g.input(decoderNames.hidden, { dtype: 'f32', shape: [options.rows, config.width] });
  const block: Block = { g, config, options, session, table, layer, weight: (part) => weight(tensorNames.layer(layer, part)) };
  g.output(decoderNames.hidden, blockPart(block, x));
  return g.build();
}

type BlockOptions = Omit<DecoderGraphOptions, 'logits'>;

interface Block {
  readonly g: GraphBuilder;
  readonly config: DecoderConfig;
  readonly options: BlockOptions;
  readonly session: NodeId;
  readonly table: NodeId;
  readonly layer: number;
  weight(part: string): NodeId;
}

/** The residual stream after a block, f32 [T, width] as before it. */
function blockPart(block: Block, x: NodeId): NodeId {
  const { g, layer } = block;
  const attended = g.binary('add', x, attentionPart(block, x), `blk.${layer}.attn_residual`);
  return g.binary('add', attended, feedForwardPart(block, attended), `blk.${layer}.ffn_residual`);
}

/** x f32 [T, width] to the attention's contribution, f32 [T, width]. */
function attentionPart(block: Block, x: NodeId): NodeId {
  const { g, config, options, layer, session } = block;
  const { heads, kvHeads, headWidth } = config;
  const normed = g.rmsNorm(x, block.weight('attn_norm.weight'), config.eps, `blk.${layer}.attn_norm`);
  const q = rotate(block, project(block, normed, 'attn_q', heads), 'attn_q');
  const k = rotate(block, project(block, normed, 'attn_k', kvHeads), 'attn_k');
  const v = project(block, normed, 'attn_v', kvHeads);
  const cache = cacheTensor(config, options.cacheType, options.contextLength);
  const keys = g.cacheWrite(g.state(decoderNames.keys(layer), cache), k, session, `blk.${layer}.keys_write`);
  const values = g.cacheWrite(g.state(decoderNames.values(layer), cache), v, session, `blk.${layer}.values_write`);
  const mixed = g.attention(q, keys, values, session, { scale: 1 / Math.sqrt(headWidth) }, `blk.${layer}.attention`);
  const flat = g.reshape(mixed, [options.rows, heads * headWidth], `blk.${layer}.attention_rows`);
  return g.linear(flat, block.weight('attn_output.weight'), { rounded: true }, `blk.${layer}.attn_output`);
}

/** A projection with its bias, by heads: f32 [T, heads, headWidth]. */
function project(block: Block, x: NodeId, part: string, heads: number): NodeId {
  const { g, config, options, layer } = block;
  const bias = config.qkvBias ? { bias: block.weight(`${part}.bias`) } : {};
  const y = g.linear(x, block.weight(`${part}.weight`), { ...bias, rounded: true }, `blk.${layer}.${part}`);
  return g.reshape(y, [options.rows, heads, config.headWidth], `blk.${layer}.${part}_heads`);
}

function rotate(block: Block, x: NodeId, part: string): NodeId {
  const { g, config, layer } = block;
  const normed = config.qkNorm ? g.rmsNorm(x, block.weight(`${part}_norm.weight`), config.eps, `blk.${layer}.${part}_norm`) : x;
  return g.rope(normed, block.table, block.session, config.ropePairing, `blk.${layer}.${part}_rope`);
}

/** down(silu(gate(x)) * up(x)) of the normed x. */
function feedForwardPart(block: Block, x: NodeId): NodeId {
  const { g, config, layer } = block;
  const normed = g.rmsNorm(x, block.weight('ffn_norm.weight'), config.eps, `blk.${layer}.ffn_norm`);
  const gate = g.linear(normed, block.weight('ffn_gate.weight'), { rounded: true }, `blk.${layer}.ffn_gate`);
  const up = g.linear(normed, block.weight('ffn_up.weight'), { rounded: true }, `blk.${layer}.ffn_up`);
  const activated = g.binary('mul', g.unary('silu', gate, {}, `blk.${layer}.ffn_silu`), up, `blk.${layer}.ffn_gated`);
  return g.linear(activated, block.weight('ffn_down.weight'), { rounded: true }, `blk.${layer}.ffn_down`);
}

/** Each weight becomes one leaf, however often it is read. */
function weightLookup(g: GraphBuilder, weights: ReadonlyMap<string, TensorType>): (name: string) => NodeId {
  const made = new Map<string, NodeId>();
  return (name) => {
    const known = made.get(name);
    if (known !== undefined) return known;
    const type = weights.get(name);
    if (type === undefined) throw new GraphError(`the weight "${name}" has no type`);
    const id = g.param(name, type);
    made.set(name, id);
    return id;
  };
}
