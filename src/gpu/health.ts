/** What can go wrong with a device behind the caller's back: its loss, its disposal, errors that no scope caught. */

import { DeviceError, DeviceLostError, DisposedError } from '../core/errors.js';

/** Messages kept between two checks; a broken loop may raise thousands. */
const maxKept = 8;

export class DeviceHealth {
  /** Resolves, never rejects, when the device is gone. */
  readonly lost: Promise<DeviceLostError>;
  readonly #label: string;
  readonly #device: GPUDevice;
  readonly #onError = (event: Event) => this.#record(event as GPUUncapturedErrorEvent);
  #loss: DeviceLostError | undefined;
  #disposed = false;
  #messages: string[] = [];
  #count = 0;

  constructor(device: GPUDevice, label: string) {
    this.#device = device;
    this.#label = label;
    this.lost = device.lost.then((info) => {
      this.#loss ??= lossOf(label, info.reason ?? 'unknown', info.message);
      return this.#loss;
    });
    device.addEventListener('uncapturederror', this.#onError);
  }

  get loss(): DeviceLostError | undefined {
    return this.#loss;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Throws what happened since the last call: disposal and loss every time, uncaptured errors once. */
  check(): void {
    if (this.#disposed) throw new DisposedError(`the GPU device ${this.#label}`);
    if (this.#loss !== undefined) throw this.#loss;
    if (this.#count === 0) return;
    const shown = this.#messages.join('\n');
    const hidden = this.#count - this.#messages.length;
    this.#messages = [];
    this.#count = 0;
    throw new DeviceError('E_DEVICE', `the GPU device ${this.#label} reported: ${shown}${hidden > 0 ? `\nand ${hidden} more` : ''}`);
  }

  /**
   * The error to throw for a rejected WebGPU promise. A lost device rejects with AbortError, sometimes before `lost` resolves: the queue's own promise comes
   * later than both, and where it does not, an abort still means a loss, because nothing else aborts what Centella waits for.
   */
  async explain(error: unknown, what: string): Promise<Error> {
    if (this.#loss === undefined) await this.#device.queue.onSubmittedWorkDone().catch(() => undefined);
    if (this.#loss !== undefined) return this.#loss;
    const { name, message } = error instanceof Error ? error : { name: '', message: String(error) };
    if (name === 'AbortError') return lossOf(this.#label, 'unknown', `${what} was aborted`);
    return new DeviceError('E_DEVICE', `${what} failed on the GPU device ${this.#label}: ${`${name} ${message}`.trim()}`, { cause: error });
  }

  dispose(): void {
    this.#disposed = true;
    this.#device.removeEventListener('uncapturederror', this.#onError);
  }

  #record(event: GPUUncapturedErrorEvent): void {
    // Else the runtime prints it.
    event.preventDefault();
    this.#count++;
    if (this.#messages.length < maxKept) this.#messages.push(event.error.message);
  }
}

function lossOf(label: string, reason: string, message: string): DeviceLostError {
  const cause = message === '' ? '' : ` (${message})`;
  return new DeviceLostError(reason, `the GPU device ${label} was lost: ${reason}${cause}. What lived on it is gone: request a new device and load again`);
}
