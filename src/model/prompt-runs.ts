/**
 * How a prompt is cut into runs. A run computes all its rows, padding too, so a prompt that ends shortly after a size should not take the next one: what it costs is the rows of its
 * runs, and for each run the time in which a GPU would make some rows more.
 */

/** Rows that starting a run is worth: every weight is read and decoded once more. Measured on a large GPU: 330 with a model of 8 billion weights, 500 with one of 1 billion. */
const runCost = 400;

/**
 * Live rows of the runs that take `tokens` tokens, in order. `sizes` are the rows of the runs that there are, ascending; all but the last run are full.
 */
export function promptRuns(tokens: number, sizes: readonly number[]): number[] {
  const largest = sizes.at(-1) ?? 1;
  const runs: number[] = new Array<number>(Math.max(0, Math.ceil(tokens / largest) - 1)).fill(largest);
  const rest = tokens - runs.length * largest;
  return rest > 0 ? [...runs, ...cheapest(rest, sizes).runs] : runs;
}

interface Cut {
  readonly cost: number;
  readonly runs: readonly number[];
}

/** The last tokens, at most the largest size: one run with padding, or a full smaller one and the same question for what is left. */
function cheapest(tokens: number, sizes: readonly number[]): Cut {
  const covering = sizes.find((size) => size >= tokens) ?? tokens;
  const whole: Cut = { cost: covering + runCost, runs: [tokens] };
  const below = sizes.findLast((size) => size < tokens);
  if (below === undefined || below === 1 || whole.cost <= below + 2 * runCost) return whole;
  const left = cheapest(tokens - below, sizes);
  const cut: Cut = { cost: below + runCost + left.cost, runs: [below, ...left.runs] };
  return cut.cost < whole.cost ? cut : whole;
}
