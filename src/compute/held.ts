/** Something that uses in flight keep alive after its owner has let go of it: it is freed when both are over. */
export class Held {
  readonly #free: () => void;
  #uses = 0;
  #released = false;

  constructor(free: () => void) {
    this.#free = free;
  }

  /** Begins a use; the function that comes back ends it, and must be called once. */
  use(): () => void {
    this.#uses++;
    return () => {
      this.#uses--;
      if (this.#released && this.#uses === 0) this.#free();
    };
  }

  /** The owner's end; again is no error. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (this.#uses === 0) this.#free();
  }
}
