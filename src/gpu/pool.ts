/** Several GPU devices used as one: the least busy one is lent, and work is spread over all and survives the loss of some. */

import type { CapabilityMask } from '../core/capabilities.js';
import { ArgumentError, CentellaError, DeviceLostError, DisposedError } from '../core/errors.js';
import { type AdapterList, assertOneOf } from './adapter.js';
import { isPartOfName } from './capabilities.js';
import { GpuDevice, type GpuDeviceOptions } from './device.js';
import { type SkippedAdapter, usableAdapters } from './pool-adapters.js';
import { leastBusy, type MapContext, type MapFunction, MapRun, type PoolWorker } from './pool-map.js';

export type { MapContext, MapFunction, SkippedAdapter };

/** Which devices a pool has. */
export interface GpuDevicePoolOptions {
  /**
   * Adapters by index in `GpuDevice.adapters()` or by a part of their name, software ones too; one that is named twice gets two devices. Default: every hardware
   * adapter, once.
   */
  readonly adapters?: readonly (number | string)[];
  /** Devices on each adapter, so that host work for one overlaps with the other's. Default 1. */
  readonly devicesPerAdapter?: number;
  /** The caller's own devices instead of adapters. They are used as they are and stay alive after `dispose()`. */
  readonly devices?: readonly (GPUDevice | GpuDevice)[];
  /** Whether adapters that render on the CPU are taken by themselves. Default 'refuse'. */
  readonly software?: 'allow' | 'refuse';
  /** Keep Dawn's own checks on (Node only). */
  readonly checked?: boolean;
  /** Most bytes allocated at once on each device. */
  readonly budgetBytes?: number;
  readonly mask?: CapabilityMask;
}

export interface MapOptions {
  /** Stops the handing out of items; those in work are waited for, then `map` rejects with AbortedError. */
  readonly signal?: AbortSignal;
  /** Items that one device works on at a time. Default 1. */
  readonly perDevice?: number;
}

/** A device lent by `acquire()`; `using` gives it back at the end of the block. */
export interface GpuLease {
  readonly device: GpuDevice;
  /** Position of the device in the pool. */
  readonly index: number;
  /** Gives the device back; again is no error. */
  release(): void;
  /** As `release`. */
  [Symbol.dispose](): void;
}

export interface PoolDeviceReport {
  readonly index: number;
  readonly name: string;
  readonly backend: string;
  readonly software: boolean;
  /** Where several adapters have one name. */
  readonly pciAddress?: string;
  /** Index in `GpuDevice.adapters()`; not for devices that the caller brought. */
  readonly adapterIndex?: number;
  /** Why it is in the pool. */
  readonly reason: string;
  readonly state: 'ready' | 'lost' | 'disposed';
  /** Items and leases that it has now, and had in all. */
  readonly busy: number;
  readonly served: number;
}

/** What is in a pool, and what is not and why. */
export interface PoolReport {
  readonly devices: readonly PoolDeviceReport[];
  /** Adapters and devices that are not in the pool, and why. */
  readonly skipped: readonly SkippedAdapter[];
  /** What could not be told apart or reached. */
  readonly notes: readonly string[];
}

/** Where a pool finds adapters and opens devices; tests put their own in its place. */
export interface PoolSource {
  adapters(): Promise<AdapterList>;
  open(options: GpuDeviceOptions): Promise<GpuDevice>;
}

interface Wanted {
  readonly name: string;
  readonly backend: string;
  readonly adapterIndex?: number;
  /** A device that stays the caller's. */
  readonly borrowed?: GpuDevice;
  readonly options: GpuDeviceOptions;
}

interface Member extends PoolWorker<GpuDevice> {
  readonly owned: boolean;
  readonly adapterIndex?: number;
}

/** Several devices: all usable adapters, chosen ones, or the caller's devices. `map` spreads work over them and survives the loss of one. */
export class GpuDevicePool implements Iterable<GpuDevice> {
  readonly #members: readonly Member[];
  readonly #skipped: readonly SkippedAdapter[];
  readonly #notes: readonly string[];
  #disposed = false;

  private constructor(members: readonly Member[], skipped: readonly SkippedAdapter[], notes: readonly string[]) {
    this.#members = members;
    this.#skipped = skipped;
    this.#notes = notes;
  }

  /**
   * Opens the devices. One that cannot be opened is left out and reported.
   * @throws CentellaError E_NO_WEBGPU; E_NO_ADAPTER where no device is left, with the reason for each.
   * @throws ArgumentError for an adapter that does not exist, and for options that exclude each other.
   */
  static async request(options: GpuDevicePoolOptions = {}, source: PoolSource = systemSource): Promise<GpuDevicePool> {
    assertOptions(options);
    const { wanted, skipped, notes } = await wantedDevices(options, source);
    const members: Member[] = [];
    for (const { name, backend, adapterIndex, borrowed, options: deviceOptions } of wanted) {
      try {
        const device = borrowed ?? (await source.open(deviceOptions));
        device.check();
        members.push({ ...memberOf(device, members.length, borrowed === undefined), ...(adapterIndex === undefined ? {} : { adapterIndex }) });
      } catch (error) {
        if (error instanceof ArgumentError) {
          disposeOwned(members);
          throw error;
        }
        skipped.push({ ...(adapterIndex === undefined ? {} : { adapterIndex }), name, backend, why: error instanceof Error ? error.message : String(error) });
      }
    }
    if (members.length === 0) throw noDevice(skipped, notes);
    return new GpuDevicePool(members, skipped, notes);
  }

  /** Devices, lost ones included. */
  get size(): number {
    return this.#members.length;
  }

  /** The device at a position, lost or not; undefined past the end. */
  get(index: number): GpuDevice | undefined {
    return this.#members[index]?.device;
  }

  /** The devices, lost ones too, in the order of the report. */
  *[Symbol.iterator](): Iterator<GpuDevice> {
    for (const { device } of this.#members) yield device;
  }

  /** The state of every device, what was left out, and why. */
  get report(): PoolReport {
    const devices = this.#members.map(({ device, index, busy, served, adapterIndex }): PoolDeviceReport => {
      const { name, backend, software, pciAddress } = device.adapterInfo;
      const state = device.isDisposed ? 'disposed' : device.isLost ? 'lost' : 'ready';
      const place = { ...(pciAddress === undefined ? {} : { pciAddress }), ...(adapterIndex === undefined ? {} : { adapterIndex }) };
      return { index, name, backend, software, reason: device.reason, state, busy, served, ...place };
    });
    return { devices, skipped: this.#skipped, notes: this.#notes };
  }

  /**
   * Lends the device with the fewest leases and items now. Leases only count: a device may be lent several times at once.
   * @throws DeviceLostError where every device is lost.
   */
  acquire(): GpuLease {
    this.#assertUsable();
    const member = leastBusy(this.#members);
    if (member === undefined) throw allLost(this.#members);
    member.busy++;
    member.served++;
    let lent = true;
    const release = (): void => {
      if (lent) member.busy--;
      lent = false;
    };
    return { device: member.device, index: member.index, release, [Symbol.dispose]: release };
  }

  /**
   * Runs `apply` on every item, each on one device, and gives the results in the order of the items.
   *
   * The items of a device that is lost are run again on the others, from the start: `apply` must keep no half-done work outside the device, and give results that
   * outlive it (numbers, not buffers). Any other error of `apply` ends the map: no further item is handed out, those in work are waited for, and the error is thrown.
   * @throws DeviceLostError where no device is left for the items that remain.
   * @throws AbortedError where `signal` fires.
   */
  async map<Item, Result>(items: Iterable<Item>, apply: MapFunction<GpuDevice, Item, Result>, { signal, perDevice = 1 }: MapOptions = {}): Promise<Result[]> {
    this.#assertUsable();
    if (typeof apply !== 'function') throw new ArgumentError('apply', `map runs a function (item, device, context) on every item, got ${typeof apply}`);
    if (typeof Object(items)[Symbol.iterator] !== 'function') throw new ArgumentError('items', `map takes a list of items, got ${typeof items}`);
    if (!Number.isSafeInteger(perDevice) || perDevice < 1)
      throw new ArgumentError('perDevice', `a device works on one item or more at a time, got ${perDevice}`);
    return new MapRun(this.#members, [...items], apply, { signal, perDevice }).run();
  }

  /** Ends every device that the pool opened; the caller's stay alive. Work in flight fails with E_DISPOSED. Again is no error. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    disposeOwned(this.#members);
  }

  /** As `dispose`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #assertUsable(): void {
    if (this.#disposed) throw new DisposedError('the pool of GPU devices');
  }
}

const systemSource: PoolSource = { adapters: () => GpuDevice.adapters(), open: (options) => GpuDevice.request(options) };

function assertOptions({ adapters, devices, devicesPerAdapter = 1, software, checked }: GpuDevicePoolOptions): void {
  if (!Number.isSafeInteger(devicesPerAdapter) || devicesPerAdapter < 1) {
    throw new ArgumentError('devicesPerAdapter', `a pool has one device or more on each adapter, got ${devicesPerAdapter}`);
  }
  for (const [name, list] of Object.entries({ adapters, devices }))
    if (list !== undefined && !Array.isArray(list)) throw new ArgumentError(name, `"${name}" is a list, got ${JSON.stringify(list)}`);
  assertOneOf('software', software, ['allow', 'refuse']);
  if (adapters?.length === 0)
    throw new ArgumentError('adapters', 'the list of adapters is empty: name one, or leave the list out to take every hardware adapter');
  if (devices === undefined) return;
  if (devices.length === 0) throw new ArgumentError('devices', 'the list of devices is empty: give one, or leave the list out to take every hardware adapter');
  const other = { adapters, software, checked, devicesPerAdapter: devicesPerAdapter === 1 ? undefined : devicesPerAdapter };
  for (const [name, value] of Object.entries(other)) {
    if (value !== undefined) throw new ArgumentError(name, `"${name}" chooses adapters, but the caller brought devices: give one of the two`);
  }
}

async function wantedDevices(
  options: GpuDevicePoolOptions,
  source: PoolSource,
): Promise<{ wanted: readonly Wanted[]; skipped: SkippedAdapter[]; notes: readonly string[] }> {
  const { devices, adapters, devicesPerAdapter = 1, software = 'refuse', checked, budgetBytes, mask } = options;
  const common = { ...(budgetBytes === undefined ? {} : { budgetBytes }), ...(mask === undefined ? {} : { mask }) };
  if (devices !== undefined) return { wanted: devices.map((device) => wantedOf(device, common)), skipped: [], notes: [] };
  const list = await source.adapters();
  const chosen = adapters === undefined ? usableAdapters(list.adapters, software) : { usable: adapters.map((name) => namedAdapter(name, list)), skipped: [] };
  const adapterOptions = { ...common, ...(checked === undefined ? {} : { checked }) };
  const wanted = chosen.usable.flatMap(({ index, name, backend }) =>
    Array.from({ length: devicesPerAdapter }, () => ({ name, backend, adapterIndex: index, options: { ...adapterOptions, adapter: index } })),
  );
  const labelled = wanted.map((entry, position) => ({ ...entry, options: { ...entry.options, label: `${entry.name} (device ${position} of the pool)` } }));
  return { wanted: labelled, skipped: [...chosen.skipped], notes: list.notes };
}

function wantedOf(device: GPUDevice | GpuDevice, options: GpuDeviceOptions): Wanted {
  if (!(device instanceof GpuDevice))
    return { name: (device?.label ?? '') === '' ? "the caller's device" : device.label, backend: 'webgpu', options: { ...options, device } };
  const { name, backend } = device.adapterInfo;
  return { name, backend, borrowed: device, options };
}

function namedAdapter(wanted: number | string, { adapters }: AdapterList): { index: number; name: string; backend: string } {
  const found = typeof wanted === 'number' ? adapters.find(({ index }) => index === wanted) : adapters.find(({ name }) => isPartOfName(wanted, name));
  if (found !== undefined) return found;
  const known = adapters.map(({ index, name, backend }) => `${index}: ${name} (${backend})`).join('; ');
  throw new ArgumentError(
    'adapters',
    `no adapter ${typeof wanted === 'number' ? `with index ${wanted}` : `named "${wanted}"`}; there is ${known === '' ? 'none' : known}`,
  );
}

function memberOf(device: GpuDevice, index: number, owned: boolean): Member {
  return {
    device,
    index,
    owned,
    busy: 0,
    served: 0,
    loss: () => (device.isDisposed ? new DisposedError(`the GPU device ${device.label}`) : device.health.loss),
    // The queue's promise comes after that of the loss, whichever way it ends.
    settled: () => device.queue.onSubmittedWorkDone().catch(() => undefined),
  };
}

function disposeOwned(members: readonly Member[]): void {
  for (const { device, owned } of members) if (owned) device.dispose();
}

function noDevice(skipped: readonly SkippedAdapter[], notes: readonly string[]): CentellaError {
  const reasons = [...skipped.map(({ name, backend, why }) => `${name} (${backend}): ${why}`), ...notes];
  return new CentellaError('E_NO_ADAPTER', `no GPU device for the pool. ${reasons.length === 0 ? 'WebGPU has no adapter here' : reasons.join('; ')}`);
}

function allLost(members: readonly Member[]): Error {
  const losses = members.flatMap(({ device }) => device.health.loss ?? []);
  const [loss] = losses;
  if (loss === undefined) return new DisposedError('every GPU device of the pool');
  return new DeviceLostError(loss.reason, `every device of the pool is lost: make a new pool. ${losses.map(({ message }) => message).join('; ')}`);
}
