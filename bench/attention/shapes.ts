/** Attention shapes of released models. */
export interface AttentionShape {
  readonly name: string;
  readonly heads: number;
  readonly kvHeads: number;
  /** Elements of a head. */
  readonly width: number;
  /** Whether queries and keys have norms of their own. */
  readonly norms: boolean;
}

export const attentionShapes: readonly AttentionShape[] = [
  { name: 'llama-3.1-8b', heads: 32, kvHeads: 8, width: 128, norms: false },
  { name: 'llama-3.2-1b', heads: 32, kvHeads: 8, width: 64, norms: false },
  { name: 'qwen3-0.6b', heads: 16, kvHeads: 8, width: 128, norms: true },
  { name: 'qwen2.5-1.5b', heads: 12, kvHeads: 2, width: 128, norms: false },
];
