/** Operations that every library has, with their inputs: what the libraries are compared by. */

interface Sized {
  readonly name: string;
  /** Operations timed together, after which one element is read: enough for milliseconds of work, few enough that all results fit the device. */
  readonly repeats: number;
  /** Multiplications and additions of one, or bytes that it must move; the other is undefined. */
  readonly flops?: number;
  readonly bytes?: number;
}

export type Workload = Sized &
  (
    | { readonly op: 'matmul'; readonly n: number }
    | { readonly op: 'add' | 'sum'; readonly size: number }
    | { readonly op: 'softmax'; readonly rows: number; readonly columns: number }
    /** [1, channels, side, side] by [channels, channels, kernel, kernel], output as large as the input. */
    | { readonly op: 'conv2d'; readonly channels: number; readonly side: number; readonly kernel: number }
  );

/** What one library says about one operation. */
export interface Measured {
  /** Microseconds of one operation by the clock, dispatch included: median, fastest and slowest of five rounds. */
  readonly us: number;
  readonly least: number;
  readonly most: number;
  /** The first element of the result, by which the libraries are held to each other. */
  readonly first: number;
}

/** One operation of a library, with its inputs on the device. */
export interface Prepared {
  /** Runs it `repeats` times, waits for all, and gives the first element of the last result. */
  repeat(repeats: number): Promise<number>;
  dispose?(): void;
}

const matmul = (n: number, repeats: number): Workload => ({ name: `matmul ${n}`, op: 'matmul', n, repeats, flops: 2 * n ** 3 });

/** `small` makes them small enough for a rasteriser. */
export function workloads(small: boolean): readonly Workload[] {
  const [million, rows, side, channels] = small ? [1000, 16, 16, 4] : [1_000_000, 4096, 224, 64];
  const products = small
    ? [matmul(64, 4)]
    : [
        [512, 100],
        [1024, 50],
        [2048, 20],
        [4096, 8],
      ].map(([n = 0, repeats = 1]) => matmul(n, repeats));
  return [
    ...products,
    { name: `add ${10 * million}`, op: 'add', size: 10 * million, repeats: 40, bytes: 120 * million },
    { name: `sum ${20 * million}`, op: 'sum', size: 20 * million, repeats: 40, bytes: 80 * million },
    { name: `softmax 1 x ${million}`, op: 'softmax', rows: 1, columns: million, repeats: 100, bytes: 8 * million },
    { name: `softmax ${rows} x ${rows}`, op: 'softmax', rows, columns: rows, repeats: 20, bytes: 8 * rows ** 2 },
    { name: `conv2d ${channels} x ${side} x ${side}, 3 x 3`, op: 'conv2d', channels, side, kernel: 3, repeats: 20, flops: 2 * channels ** 2 * 9 * side ** 2 },
  ];
}

/** Shapes of a workload's inputs, channels before rows. */
export function shapesOf(work: Workload): readonly (readonly number[])[] {
  switch (work.op) {
    case 'matmul':
      return [
        [work.n, work.n],
        [work.n, work.n],
      ];
    case 'add':
      return [[work.size], [work.size]];
    case 'sum':
      return [[work.size]];
    case 'softmax':
      return [[work.rows, work.columns]];
    case 'conv2d':
      return [
        [1, work.channels, work.side, work.side],
        [work.channels, work.channels, work.kernel, work.kernel],
      ];
  }
}

/** The same numbers for every library, in [0, 1). */
export function inputsOf(work: Workload): readonly Float32Array[] {
  return shapesOf(work).map((shape, input) => {
    const size = shape.reduce((product, extent) => product * extent, 1);
    return Float32Array.from({ length: size }, (_, i) => ((i * 7919 + input * 104_729) % 1009) / 1009);
  });
}

/** Until the clocks are up: they fall while nothing runs. */
export const warmUpMs = 300;

/** Five rounds of `repeats` operations, after one to compile and some to warm up. */
export async function measure({ repeats }: Workload, prepared: Prepared): Promise<Measured> {
  const first = await prepared.repeat(1);
  for (const start = performance.now(); performance.now() - start < warmUpMs; ) await prepared.repeat(repeats);
  const times: number[] = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    await prepared.repeat(repeats);
    times.push(((performance.now() - start) * 1000) / repeats);
  }
  times.sort((p, q) => p - q);
  prepared.dispose?.();
  return { us: times[2] ?? Number.NaN, least: times[0] ?? Number.NaN, most: times[4] ?? Number.NaN, first };
}
