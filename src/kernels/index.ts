/** The kernels as a public artefact: what families there are, and the WGSL of the steps that a graph lowers to. */

import type { GpuKernel } from '../core/kernel.js';
import type { Step } from '../core/step.js';

/** What each kernel family computes. */
export const kernelFamilies: { readonly [family: string]: string } = {
  advance: 'ends a decode step: moves the position on and stores the chosen token',
  argmax: 'index of the largest element of each chunk of each row',
  argmax_merge: 'the best of the chunks of a row',
  attend_token: 'attention of one token from its raw queries, keys and values; writes its cache rows',
  attention_decode: 'attention of one query row over a part of the KV cache',
  attention_matrix: 'attention of many query rows on subgroup matrices',
  attention_merge: 'adds the partial sums of attention_decode',
  attention_prefill: 'attention of many query rows, tile by tile, with a running softmax',
  binary: 'a function of two tensors, with broadcasting',
  cache_quantise: 'rounds new keys or values to signed bytes in a KV cache',
  cache_write: 'writes new keys or values into a KV cache',
  cast: 'turns elements into another type',
  ceiling_multiply: 'multiplies as fast as a device can',
  ceiling_read: 'reads as fast as a device can',
  choose_token: 'the best of the head becomes the next token; ends a decode step',
  compare: 'compares two tensors, with broadcasting: 1 where it holds, else 0',
  concat: 'copies parts one after another along an axis',
  conv2d: 'slides kernels over images of several channels',
  conv2d_tile: 'a convolution as a product of matrices in tiles',
  copy_part: 'copies a part of a vector',
  cumsum_chunks: 'running sums within chunks of rows',
  cumsum_columns: 'running sums along an axis that is not the last',
  cumsum_totals: 'sums of chunks of rows',
  embed_token: 'the embedding of one token, with its 8-bit form',
  gather: 'decodes rows of a table by their ids',
  gemm: 'product of two f32 matrices, tile by tile',
  gemm_f16: 'f16 matrices times f16 matrices with f32 sums, on subgroup matrices',
  gemm_int8: 'packed weights times many rows of 8-bit activations, tile by tile',
  gemm_skinny: 'product of two f32 matrices of which one has a few lines',
  jacobi_check: 'what a symmetric matrix has off the diagonal, and its diagonal',
  jacobi_product: 'a product of matrices to about twice the digits of f32',
  jacobi_round: 'turns disjoint pairs of axes of a symmetric matrix and its eigenvectors',
  last_row: 'copies the last live row',
  layer_norm: 'scales rows to mean 0 and variance 1, times a gain, plus a bias',
  matmul: 'packed weights times many rows, tile by tile',
  matvec: 'packed weights times one or a few rows',
  noise: 'numbers to measure with',
  pack_activations: 'a vector as 8-bit activations',
  rearrange_weights: 'packed weights from the layout of files to that of kernels',
  reduce: 'sums, means, extremes or products along axes',
  region: 'a chain of elementwise operations in one pass',
  rms_norm: 'scales rows to a root mean square of 1, times a gain',
  rope: 'turns pairs of elements by angles of their position',
  sample_draw: 'draws a token from what the filters leave of the logits, and updates the states',
  sample_survey: 'the largest logit of every group of tokens, and the sum of their weights',
  softmax_chunks: 'maximum and sum of each chunk of a long row',
  softmax_columns: 'softmax, or its logarithm, along an axis that is not the last',
  softmax_join: 'adds the chunks of softmax_chunks',
  softmax_rows: 'softmax, or its logarithm, of each row',
  softmax_write: 'softmax, or its logarithm, of long rows, from softmax_join',
  split_sum: 'adds the parts of a product whose depth was split',
  strided_copy: 'copies elements by strides',
  survey_logits: 'the largest of each part of the logits, NaN above all',
  swiglu: 'silu of the gate times up',
  'tiled-reduce': 'reduces rows tile by tile, shapes given at run time',
  'tiled-reduce-constant': 'reduces rows tile by tile, for one shape',
  to_f16: 'activations as f16, rows filled up with zeros',
  to_f16_turned: 'a matrix as f16 with its axes swapped, rows filled up with zeros',
  to_int8: 'activations of many rows as 8-bit integers',
  token_product: 'packed weights times the 8-bit activations of one token, with norm, residual or gate, and the next activations',
  token_product_f32: 'weights of any type times the f32 activations of one token, with norm, bias, residual or gate',
  top_k_merge: 'merges sorted lists of the largest elements',
  top_k_rank: 'places the largest elements by their rank',
  top_k_sort: 'sorts the largest elements of a row',
  transpose: 'swaps two axes',
  unary: 'a function of each element',
  weights_to_f16: 'packed weights decoded to f16',
  where: 'chooses between two tensors, with broadcasting',
};

/** A kernel that some steps run. */
export interface KernelListing {
  readonly kernel: GpuKernel;
  readonly description: string;
  /** Labels of the steps that run it. */
  readonly steps: readonly string[];
}

type KernelStep = Pick<Step<GpuKernel>, 'label' | 'kernel'>;

/** The distinct kernels of a step list, in order of first use. */
export function listKernels(steps: readonly KernelStep[]): readonly KernelListing[] {
  const listings = new Map<string, { kernel: GpuKernel; description: string; steps: string[] }>();
  for (const { label, kernel } of steps) {
    const known = listings.get(kernel.key);
    if (known === undefined) listings.set(kernel.key, { kernel, description: kernelFamilies[kernel.family] ?? kernel.family, steps: [label] });
    else known.steps.push(label);
  }
  return [...listings.values()];
}

/** The WGSL of every distinct kernel of a step list, each under a comment with its key, grid and steps. */
export function printKernels(steps: readonly KernelStep[]): string {
  return listKernels(steps)
    .map(({ kernel, description, steps: labels }) => {
      const size = `${kernel.workgroups.join(' x ')} workgroups of ${kernel.workgroupSize.join(' x ')}, ${kernel.workgroupBytes} bytes of workgroup memory`;
      return `// ${kernel.family}: ${description}\n// ${kernel.key}\n// ${size}\n// ${labels.join(', ')}\n${kernel.wgsl()}`;
    })
    .join('\n');
}
