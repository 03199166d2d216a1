/** The session state of a decoder on its device: what a run is told through it, and what it says of the tokens chosen. */

import { bytesOf, u32Of } from '../core/bytes.js';
import { DisposedError } from '../core/errors.js';
import { chosenTokens, chosenWords, stateWord } from '../ops/state.js';
import type { Region, RegionWrite, Storage } from '../runtime/backend.js';
import type { TensorStore } from '../runtime/tensors.js';
import { decoderNames } from './decoder-graph.js';

/** The tokens that the last `runs` runs chose, first to last, from what `DecoderSession.chosen` read. */
export function tokensIn(bytes: Uint8Array | undefined, runs: number): readonly number[] {
  return chosenTokens(u32Of(bytes ?? new Uint8Array()), runs);
}

export class DecoderSession {
  readonly #tensors: TensorStore;
  readonly #owner: string;
  #chosen: readonly Region[] | undefined;

  /** `owner`: whose tensors these are, for errors. */
  constructor(tensors: TensorStore, owner: string) {
    this.#tensors = tensors;
    this.#owner = owner;
  }

  /** What is written before a run at `position` over `ids`, or over so many rows that no ids lead to. @throws DisposedError once the tensors are freed. */
  writes(position: number, ids: readonly number[] | number): readonly RegionWrite[] {
    const storage = this.#storage();
    const head = Uint32Array.of(position, typeof ids === 'number' ? ids : ids.length);
    const writes = [{ storage, offset: stateWord.position * 4, bytes: bytesOf(head) }];
    return typeof ids === 'number' ? writes : [...writes, { storage, offset: stateWord.ids * 4, bytes: bytesOf(Uint32Array.from(ids)) }];
  }

  /** What a run is read by to learn what it chose: the same list every time. */
  get chosen(): readonly Region[] {
    this.#chosen ??= [{ storage: this.#storage(), offset: 0, byteLength: chosenWords * 4 }];
    return this.#chosen;
  }

  #storage(): Storage {
    const storage = this.#tensors.get(decoderNames.session)?.shards[0]?.storage;
    if (storage === undefined) throw new DisposedError(this.#owner);
    return storage;
  }
}
