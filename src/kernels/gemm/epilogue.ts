/** What a product is finished with as it is written: a chain of elementwise steps, which may read further tensors. */

import type { BindingKind } from '../../core/kernel.js';
import type { Shape } from '../../core/tensor.js';
import { broadcastStrides } from '../../ops/elementwise.js';
import type { RegionStep } from '../../ops/params.js';
import { regionText } from '../region.js';

/** A parameter of kernels: equal epilogues are equal text. */
export type Epilogue = {
  /** Module text with `fn apply(x0: f32, x1: f32, ...) -> f32`; x0 is the product. */
  readonly text: string;
  /** Strides of the further inputs along the rows and columns of the product, 0 where they repeat. */
  readonly strides: readonly (readonly [row: number, column: number])[];
};

export function epilogueOf(steps: readonly RegionStep[], extras: readonly Shape[], output: Shape): Epilogue {
  const strides = extras.map((shape): readonly [number, number] => {
    const [row = 0, column = 0] = broadcastStrides(shape, output);
    return [row, column];
  });
  return { text: regionText(steps, ['f32', ...extras.map(() => 'f32')]), strides };
}

/** Bindings of the further inputs, which stand before y. */
export function epilogueBindings(epilogue: Epilogue | undefined): readonly (readonly [name: string, element: string, kind: BindingKind])[] {
  return epilogue?.strides.map((_, i) => [`with${i}`, 'f32', 'read'] as const) ?? [];
}

/** `fn finish(product: f32, row: u32, column: u32) -> f32`, or nothing. */
export function epilogueFunctions(epilogue: Epilogue | undefined): string {
  if (epilogue === undefined) return '';
  const reads = epilogue.strides.map(([row, column], i) => `with${i}[row * ${row}u + column * ${column}u]`);
  return `${epilogue.text}fn finish(product: f32, row: u32, column: u32) -> f32 {
  return apply(${['product', ...reads].join(', ')});
}
`;
}

/** The text of a finished element. */
export function finished(epilogue: Epilogue | undefined, value: string, row: string, column: string): string {
  return epilogue === undefined ? value : `finish(${value}, ${row}, ${column})`;
}
