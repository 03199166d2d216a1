/**
 * Dawn in Node asks for finished work from `setImmediate`, again and again while anything is under way: it keeps one processor busy with asking, and the rasterisers
 * that the device tests wait for need every processor of a small machine. Where immediates follow each other without a pause, the next one waits a millisecond.
 */

const immediate = globalThis.setImmediate;

/** Polls that a short wait may take before it counts as a long one. */
const eager = 20;
let polls = 0;

function patientImmediate<T extends unknown[]>(callback: (...args: T) => void, ...args: T): NodeJS.Immediate {
  if (polls++ < eager) return immediate(callback, ...args);
  polls = 0;
  return setTimeout(callback, 1, ...args) as unknown as NodeJS.Immediate;
}

globalThis.setImmediate = patientImmediate as typeof setImmediate;

export {};
