import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ArgumentError, BusyError, ContextError, DisposedError } from '../../src/core/errors.js';
import { type ForwardPassOptions, WgslForwardPass } from '../../src/model/forward-pass.js';
import { tensorNames } from '../../src/model/tensors.js';
import { dequantize, type EncodableDType, quantize } from '../../src/quant/index.js';
import type { Backend } from '../../src/runtime/backend.js';
import { fixture } from './fixtures.js';
import { argmaxRows, expectedOf, largestDifference, readModel, softmaxError } from './models.js';
import { PlainDecoder, type PlainShape, type PlainWeights, plainWeights } from './plain-decoder.js';

const small: PlainShape = {
  numLayers: 2,
  hiddenDim: 32,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 8,
  intermediateDim: 96,
  vocabSize: 40,
  eps: 1e-6,
  ropeBase: 1e6,
  ropePairing: 'halves',
  qkvBias: false,
};
const tokens = [3, 17, 0, 39, 5, 22];

const typeNames: ReadonlyMap<string, string> = new Map([
  ['attn_norm', 'attn_norm.weight'],
  ['q_proj', 'attn_q.weight'],
  ['k_proj', 'attn_k.weight'],
  ['v_proj', 'attn_v.weight'],
  ['o_proj', 'attn_output.weight'],
  ['ffn_norm', 'ffn_norm.weight'],
  ['gate_proj', 'ffn_gate.weight'],
  ['up_proj', 'ffn_up.weight'],
  ['down_proj', 'ffn_down.weight'],
]);

/** What the forward pass promises on every backend; what was wrong in older ones is tested by name. */
export function forwardPassSuite(name: string, open: () => Promise<Backend>, headDims: readonly number[]): void {
  describe(`WgslForwardPass on ${name}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await open();
    });
    afterAll(() => {
      const { weights, kv, arena, state, constants } = backend.ledger().byClass;
      expect([weights, kv, arena, state, constants].map(({ bytes }) => bytes)).toEqual([0, 0, 0, 0, 0]);
      backend.dispose();
    });

    async function make(shape: PlainShape, weights: PlainWeights, options: Partial<ForwardPassOptions> = {}): Promise<WgslForwardPass> {
      const pass = await WgslForwardPass.create({ ...shape, contextLength: 16, backend, ...options });
      for (const [weight, data] of weights) await pass.uploadWeight(weight, data);
      return pass;
    }

    /** Feeds the tokens one by one and compares every row of logits with f64. */
    async function worstOf(shape: PlainShape, options: Partial<ForwardPassOptions> = {}): Promise<number> {
      const weights = plainWeights(shape, 1);
      const pass = await make(shape, weights, options);
      const plain = new PlainDecoder(shape, weights);
      let worst = 0;
      for (const [position, token] of tokens.entries()) {
        worst = Math.max(worst, largestDifference(plain.model(token, position), await pass.forwardModel(token, position)));
      }
      pass.dispose();
      return worst;
    }

    describe('does not repeat that', () => {
      it('the eps that is asked for reaches the last norm only', async () => {
        const shape = { ...small, eps: 0.5 };
        expect(await worstOf(shape)).toBeLessThan(2e-5);
      });

      it('the base of RoPE and its pairing are fixed', async () => {
        expect(await worstOf({ ...small, ropeBase: 100, ropePairing: 'adjacent' })).toBeLessThan(2e-5);
      });

      it('biases and RoPE are left out', async () => {
        expect(await worstOf({ ...small, qkvBias: true })).toBeLessThan(2e-5);
      });

      it('heads times their width must be the hidden width', async () => {
        expect(await worstOf({ ...small, hiddenDim: 24, headDim: 16, numKvHeads: 1 })).toBeLessThan(2e-5);
      });

      it('a feed-forward wider than the hidden state is cut off', async () => {
        expect(await worstOf({ ...small, intermediateDim: 300 })).toBeLessThan(2e-5);
      });

      it.each(headDims)('scores of a head of %i elements lose those from 64 on', async (headDim) => {
        expect(await worstOf({ ...small, numLayers: 1, hiddenDim: 16, numHeads: 2, numKvHeads: 1, headDim, intermediateDim: 32 })).toBeLessThan(2e-5);
      });

      it('a projection that is missing leaves stale numbers', async () => {
        const weights = plainWeights(small, 2);
        const late = weights.get('layer.1.k_proj') ?? new Float32Array();
        weights.delete('layer.1.k_proj');
        const pass = await make(small, weights);
        expect(pass.missingWeights()).toEqual(['layer.1.k_proj']);
        await expect(pass.forwardModel(1, 0)).rejects.toThrow('missing layer.1.k_proj');
        await expect(pass.forwardLayer(new Float32Array(32), 1, 0)).rejects.toThrow(ArgumentError);
        expect((await pass.forwardLayer(new Float32Array(32), 0, 0)).length).toBe(32);
        await pass.uploadWeight('layer.1.k_proj', late);
        expect((await pass.forwardModel(1, 0)).length).toBe(40);
        pass.dispose();
      });

      it('the KV cache has 2,048 positions that nobody checks', async () => {
        const pass = await make(small, plainWeights(small, 3), { contextLength: 3 });
        for (let position = 0; position < 3; position++) await pass.forwardModel(1, position);
        await expect(pass.forwardModel(1, 3)).rejects.toThrow(ContextError);
        await expect(pass.forwardModel([1, 2], 2)).rejects.toThrow('position 3 is past the KV cache, which holds 3');
        await expect(pass.forwardLayer(new Float32Array(64), 0, 2)).rejects.toThrow(ContextError);
        pass.dispose();
      });

      it('the bytes of packed weights, caches and results are not counted', async () => {
        const before = backend.ledger();
        const pass = await make(small, plainWeights(small, 4), { weightType: 'q8_0' });
        await pass.forwardModel([1, 2, 3], 0);
        const ledger = backend.ledger();
        // The CPU's allocator rounds each allocation up to 64 bytes.
        const rounded = backend.kind === 'cpu' ? 64 * ledger.count : 0;
        const held = ledger.bytes - before.bytes + before.byClass.staging.bytes;
        expect(pass.totalVramBytes()).toBeLessThanOrEqual(held);
        expect(pass.totalVramBytes()).toBeGreaterThanOrEqual(held - rounded);
        expect(pass.memory().weights).toBeGreaterThanOrEqual(ledger.byClass.weights.bytes - rounded);
        expect(pass.memory()).toMatchObject({ kvCache: 2 * 2 * 2 * 16 * 8 * 4, staging: ledger.byClass.staging.bytes });
        pass.dispose();
        expect(pass.totalVramBytes()).toBe(0);
      });
    });

    it('agrees with f64 for one layer, one row or several', async () => {
      const weights = plainWeights(small, 5);
      const pass = await make(small, weights);
      const plain = new PlainDecoder(small, weights);
      const hidden = Float32Array.from({ length: 5 * 32 }, (_, i) => Math.sin(i * i));
      const wanted = Array.from({ length: 5 }, (_, t) => plain.layer(Float64Array.from(hidden.subarray(t * 32, (t + 1) * 32)), 1, t)).flatMap((row) => [
        ...row,
      ]);
      expect(largestDifference(wanted.slice(0, 32), await pass.forwardLayer(hidden.subarray(0, 32), 1, 0))).toBeLessThan(1e-5);
      expect(largestDifference(wanted.slice(32), await pass.forwardLayer(hidden.subarray(32), 1, 1))).toBeLessThan(1e-5);
      pass.dispose();
    });

    it('gives the same by layers and as a whole, token by token and together', async () => {
      const weights = plainWeights(small, 6);
      const pass = await make(small, weights);
      const single: Float32Array[] = [];
      for (const [position, token] of tokens.entries()) single.push(await pass.forwardModel(token, position));
      expect(largestDifference(single.at(-1) ?? [], await pass.forwardModel(tokens, 0))).toBeLessThan(1e-5);
      expect(largestDifference(single[3] ?? [], await pass.forwardModel(tokens.slice(2, 4), 2))).toBeLessThan(1e-5);
      await expect(pass.forwardModel(1, 5)).rejects.toThrow('position 5 leaves a gap: the KV cache holds 4 positions');
      pass.dispose();
    });

    it.each(['q8_0', 'q4_0', 'f16'] satisfies EncodableDType[])('agrees with f64 over the same weights in %s', async (type) => {
      const shape = { ...small, headDim: 16, intermediateDim: 64, hiddenDim: 64 };
      const weights = plainWeights(shape, 7);
      const stored = new Map<string, Float32Array>();
      const pass = await WgslForwardPass.create({ ...shape, contextLength: 8, backend });
      for (const [weight, data] of weights) {
        const vector = weight.endsWith('norm');
        const columns = weight.endsWith('down_proj') ? shape.intermediateDim : 64;
        const packed = vector ? undefined : quantize(type, data, columns);
        // Half of them are packed by the caller.
        if (packed !== undefined && stored.size % 2 === 0) await pass.uploadWeight(weight, packed, { type });
        else await pass.uploadWeight(weight, data, vector ? {} : { type });
        stored.set(weight, packed === undefined ? data : dequantize(type, packed));
      }
      const plain = new PlainDecoder(shape, stored);
      for (const [position, token] of tokens.entries()) {
        expect(largestDifference(plain.model(token, position), await pass.forwardModel(token, position))).toBeLessThan(1e-3);
      }
      pass.dispose();
    });

    it('gives the probabilities and the greedy tokens of transformers', async () => {
      const expected = await expectedOf('llama');
      const model = await readModel(fixture('gguf/llama.gguf'));
      const { config } = model;
      const pass = await WgslForwardPass.create({
        backend,
        numLayers: config.layers,
        hiddenDim: config.width,
        numHeads: config.heads,
        numKvHeads: config.kvHeads,
        headDim: config.headWidth,
        intermediateDim: config.feedForward,
        vocabSize: config.vocabulary,
        contextLength: expected.ids.length + expected.greedy.length,
        eps: config.eps,
        ropeBase: config.ropeBase,
        ropePairing: config.ropePairing,
        tiedEmbedding: !model.weights.has(tensorNames.output),
      });
      for (const weight of pass.weightNames) {
        const [, layer, part] = /^layer\.(\d+)\.(.+)$/.exec(weight) ?? [];
        const top = weight === 'embedding' ? tensorNames.embedding : weight === 'out_norm' ? tensorNames.outputNorm : tensorNames.output;
        const tensor = layer === undefined ? top : tensorNames.layer(Number(layer), typeNames.get(part ?? '') ?? '');
        await pass.uploadWeight(weight, model.bytes.get(tensor) ?? new Uint8Array(), { type: 'f32' });
      }
      const logits: number[] = [];
      for (const [position, id] of expected.ids.entries()) logits.push(...(await pass.forwardModel(id, position)));
      expect(softmaxError(expected.logits, logits, expected.vocabulary)).toBeLessThan(1e-3);
      expect(argmaxRows(logits, expected.vocabulary)).toEqual(argmaxRows(expected.logits, expected.vocabulary));
      const greedy = argmaxRows(await pass.forwardModel(expected.ids, 0), expected.vocabulary);
      for (let position = expected.ids.length; greedy.length < expected.greedy.length; position++) {
        greedy.push(...argmaxRows(await pass.forwardModel(greedy.at(-1) ?? 0, position), expected.vocabulary));
      }
      expect(greedy).toEqual(expected.greedy);
      pass.dispose();
    });

    it('refuses what cannot be right, at the call that does it', async () => {
      const make2 = (options: Partial<ForwardPassOptions>) => WgslForwardPass.create({ ...small, contextLength: 4, backend, ...options });
      await expect(make2({ headDim: 7 })).rejects.toThrow(ArgumentError);
      await expect(make2({ numKvHeads: 3 })).rejects.toThrow('4 query heads do not divide over 3 KV heads');
      await expect(make2({ contextLength: 0 })).rejects.toThrow(ArgumentError);
      await expect(make2({ device: 'cpu' })).rejects.toThrow(ArgumentError);
      const pass = await make2({ tiedEmbedding: true });
      const wrong = (value: unknown): never => value as never;
      await expect(pass.uploadWeight('layer.0.q_proj', wrong([1, 2]))).rejects.toThrow(
        'a Float32Array of numbers or a Uint8Array of packed blocks, got object',
      );
      await expect(pass.forwardModel(wrong(undefined), 0)).rejects.toThrow('tokens are one token id or a list of them, got undefined');
      await expect(pass.forwardLayer(wrong([1]), 0, 0)).rejects.toThrow('hidden is a Float32Array of whole rows, got object');
      await expect(pass.uploadWeight('layer.0.q_bias', new Float32Array(32))).rejects.toThrow('make the pass with qkvBias: true');
      await expect(pass.uploadWeight('lm_head', new Float32Array(32))).rejects.toThrow('the embedding is tied');
      await expect(pass.uploadWeight('layer.9.q_proj', new Float32Array(32))).rejects.toThrow('is no weight of this pass');
      await expect(pass.uploadWeight('layer.0.q_proj', new Float32Array(32))).rejects.toThrow(
        '"layer.0.q_proj" is f32 [32, 32] and takes 1024 numbers, got 32',
      );
      await expect(pass.uploadWeight('layer.0.q_proj', new Uint8Array(34))).rejects.toThrow('say their type');
      await expect(pass.uploadWeight('out_norm', new Float32Array(32), { type: 'q8_0' })).rejects.toThrow('kept in f32');
      await expect(pass.uploadWeight('layer.0.q_proj', new Float32Array(1024), { type: 'q4_k' })).rejects.toThrow('whole blocks of 256');
      for (const [weight, data] of plainWeights(small, 8)) if (weight !== 'lm_head') await pass.uploadWeight(weight, data);
      await expect(pass.forwardModel(40, 0)).rejects.toThrow('token 40 is out of range: the embedding has 40 rows');
      await expect(pass.forwardModel([], 0)).rejects.toThrow(ArgumentError);
      await expect(pass.forwardModel(1, -1)).rejects.toThrow(ArgumentError);
      await expect(pass.forwardLayer(new Float32Array(33), 0, 0)).rejects.toThrow('whole rows of 32 numbers, got 33');
      await expect(pass.forwardLayer(new Float32Array(32), 2, 0)).rejects.toThrow('layers go from 0 to 1');
      const call = pass.forwardModel(1, 0);
      await expect(pass.forwardModel(1, 0)).rejects.toThrow(BusyError);
      await call;
      pass.dispose();
      await expect(pass.forwardModel(1, 0)).rejects.toThrow(DisposedError);
    });

    it('takes another type for a weight that it has', async () => {
      const weights = plainWeights(small, 9);
      const pass = await make(small, weights);
      const before = await pass.forwardModel(1, 0);
      const bytes = pass.memory().weights;
      await pass.uploadWeight('layer.0.up_proj', weights.get('layer.0.up_proj') ?? new Float32Array(), { type: 'q8_0' });
      expect(pass.memory().weights).toBeLessThan(bytes);
      const after = await pass.forwardModel(1, 0);
      expect(largestDifference(before, after)).toBeGreaterThan(0);
      expect(largestDifference(before, after)).toBeLessThan(0.05);
      pass.dispose();
    });
  });
}
