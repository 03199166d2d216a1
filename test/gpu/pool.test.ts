import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { baseCapabilities } from '../../src/core/capabilities.js';
import { DeviceLostError, DisposedError } from '../../src/core/errors.js';
import { type AdapterEntry, placed } from '../../src/gpu/adapter.js';
import { usableAdapters } from '../../src/gpu/pool-adapters.js';
import { leastBusy, type MapFunction, MapRun, type PoolWorker } from '../../src/gpu/pool-map.js';
import { parseSelectableGpus, primeName, withPrime } from '../../src/platform/device-select.js';

interface FakeWorker extends PoolWorker<string> {
  lost: Error | undefined;
}

function fakes(count: number): FakeWorker[] {
  return Array.from({ length: count }, (_, index) => {
    const worker: FakeWorker = {
      device: `gpu ${index}`,
      index,
      busy: 0,
      served: 0,
      lost: undefined,
      loss: () => worker.lost,
      settled: () => Promise.resolve(),
    };
    return worker;
  });
}

function lose(worker: FakeWorker | undefined): void {
  if (worker !== undefined) worker.lost = new DeviceLostError('destroyed', `${worker.device} was lost`);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function map<R>(workers: readonly FakeWorker[], count: number, apply: MapFunction<string, number, R>, perDevice = 1, signal?: AbortSignal): Promise<R[]> {
  const items = Array.from({ length: count }, (_, index) => index);
  return new MapRun(workers, items, apply, { signal, perDevice }).run();
}

describe('leastBusy', () => {
  it('takes the one with least to do, of equal ones the one that did least', () => {
    const workers = fakes(3);
    const taken = Array.from({ length: 7 }, () => {
      const worker = leastBusy(workers);
      if (worker === undefined) return -1;
      worker.busy++;
      worker.served++;
      return worker.index;
    });
    expect(taken).toEqual([0, 1, 2, 0, 1, 2, 0]);
    for (const worker of workers) worker.busy = 0;
    expect(leastBusy(workers)?.index).toBe(1);
  });

  it('passes over lost ones', () => {
    const workers = fakes(2);
    lose(workers[0]);
    expect(leastBusy(workers)?.index).toBe(1);
    lose(workers[1]);
    expect(leastBusy(workers)).toBeUndefined();
    expect(leastBusy([])).toBeUndefined();
  });
});

describe('a map over workers', () => {
  it('spreads items and keeps their order', async () => {
    const workers = fakes(3);
    const used: string[] = [];
    const results = await map(workers, 9, async (item, device, { index, deviceIndex }) => {
      used.push(device);
      expect(device).toBe(`gpu ${deviceIndex}`);
      await turn();
      return 10 * item + index;
    });
    expect(results).toEqual([0, 11, 22, 33, 44, 55, 66, 77, 88]);
    expect(workers.map(({ served }) => served)).toEqual([3, 3, 3]);
    expect(used.slice(0, 3)).toEqual(['gpu 0', 'gpu 1', 'gpu 2']);
    expect(workers.every(({ busy }) => busy === 0)).toBe(true);
  });

  it('gives nothing for nothing', async () => {
    expect(await map(fakes(1), 0, () => 1)).toEqual([]);
  });

  it('lets each device work on as many items as it may', async () => {
    for (const perDevice of [1, 3]) {
      const now = [0, 0];
      const most = [0, 0];
      await map(
        fakes(2),
        12,
        async (_, __, { deviceIndex }) => {
          now[deviceIndex] = (now[deviceIndex] ?? 0) + 1;
          most[deviceIndex] = Math.max(most[deviceIndex] ?? 0, now[deviceIndex]);
          await turn();
          now[deviceIndex] -= 1;
        },
        perDevice,
      );
      expect(most).toEqual([perDevice, perDevice]);
    }
  });

  it('runs the items of a lost device again on the others', async () => {
    const workers = fakes(2);
    const runs: string[] = [];
    const results = await map(workers, 6, async (item, device) => {
      runs.push(`${item} on ${device}`);
      await turn();
      if (device === 'gpu 0' && item > 0) {
        lose(workers[0]);
        throw new Error('aborted by the device');
      }
      return item;
    });
    expect(results).toEqual([0, 1, 2, 3, 4, 5]);
    expect(runs).toHaveLength(7);
    expect(runs.filter((run) => run.endsWith('gpu 0'))).toHaveLength(2);
  });

  it('does not believe a result from a device that was lost meanwhile', async () => {
    const workers = fakes(2);
    const results = await map(workers, 2, async (item, device) => {
      await turn();
      if (device === 'gpu 1') lose(workers[1]);
      return `${item} on ${device}`;
    });
    expect(results).toEqual(['0 on gpu 0', '1 on gpu 0']);
  });

  it('waits with idle devices while an item may still come back', async () => {
    const workers = fakes(2);
    const results = await map(workers, 2, async (item, device) => {
      if (device === 'gpu 0') return item;
      for (let wait = 0; wait < 5; wait++) await turn();
      lose(workers[1]);
      throw new DeviceLostError('unknown', 'lost');
    });
    expect(results).toEqual([0, 1]);
  });

  it('takes the word of a DeviceLostError before the device itself shows it', async () => {
    const results = await map(fakes(2), 4, (item, device) => {
      if (device === 'gpu 0') throw new DeviceLostError('unknown', 'lost');
      return item;
    });
    expect(results).toEqual([0, 1, 2, 3]);
  });

  it('says what is not done where no device is left', async () => {
    const workers = fakes(2);
    const failing = map(workers, 5, async (item, _, { deviceIndex }) => {
      await turn();
      if (item > 1) lose(workers[deviceIndex]);
      return item;
    });
    await expect(failing).rejects.toMatchObject({ code: 'E_DEVICE_LOST', reason: 'destroyed', message: expect.stringContaining('3 of 5 items are not done') });
    await expect(map(workers, 1, (item) => item)).rejects.toMatchObject({ code: 'E_DEVICE_LOST' });
    for (const worker of workers) worker.lost = new DisposedError(worker.device);
    await expect(map(workers, 1, (item) => item)).rejects.toMatchObject({ code: 'E_DISPOSED' });
  });

  it("throws the function's own error once the items in work are done", async () => {
    const done: number[] = [];
    const started: number[] = [];
    const failing = map(fakes(2), 6, async (item) => {
      started.push(item);
      if (item === 0) throw new RangeError('mine');
      for (let wait = 0; wait < 3; wait++) await turn();
      done.push(item);
    });
    await expect(failing).rejects.toThrow(new RangeError('mine'));
    expect(started).toEqual([0, 1]);
    expect(done).toEqual([1]);
  });

  it('stops at an abort, after the items in work', async () => {
    const controller = new AbortController();
    const done: number[] = [];
    const workers = fakes(2);
    const stopped = map(
      workers,
      10,
      async (item, _, { signal }) => {
        expect(signal).toBe(controller.signal);
        if (item === 3) controller.abort(new Error('enough'));
        await turn();
        done.push(item);
      },
      1,
      controller.signal,
    );
    await expect(stopped).rejects.toMatchObject({ name: 'AbortedError', code: 'E_ABORTED' });
    expect(done).toEqual([0, 1, 2, 3]);
    expect(workers.every(({ busy }) => busy === 0)).toBe(true);
    await expect(map(workers, 1, () => expect.unreachable(), 1, AbortSignal.abort())).rejects.toMatchObject({ code: 'E_ABORTED' });
  });

  it('loses no item, whichever devices are lost when, as long as one stays', async () => {
    const loss = fc.record({ item: fc.nat(30), device: fc.integer({ min: 1, max: 3 }) });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 1, max: 3 }), fc.array(loss, { maxLength: 4 }), async (count, perDevice, losses) => {
        const workers = fakes(4);
        const results = await map(
          workers,
          count,
          async (item) => {
            await turn();
            for (const { device } of losses.filter((entry) => entry.item === item)) lose(workers[device]);
            await turn();
            return item;
          },
          perDevice,
        );
        expect(results).toEqual(Array.from({ length: count }, (_, index) => index));
      }),
      { numRuns: 50 },
    );
  });
});

function entry(index: number, name: string, backend: string, software = false): AdapterEntry {
  return { index, name, backend, software, capabilities: baseCapabilities, powerPreferences: [] };
}

describe('the adapters that a pool takes by itself', () => {
  const list = [
    entry(0, 'NVIDIA H200', 'vulkan'),
    entry(1, 'NVIDIA H200', 'vulkan'),
    entry(2, 'llvmpipe', 'vulkan', true),
    entry(3, 'NVIDIA H200/PCIe/SSE2', 'opengles'),
    entry(4, 'NVIDIA H200', 'd3d12'),
    entry(5, 'Null backend', 'null'),
  ];

  it('are hardware ones, each GPU through one backend', () => {
    const { usable, skipped } = usableAdapters(list, 'refuse');
    expect(usable.map(({ index }) => index)).toEqual([0, 1]);
    expect(skipped.map(({ adapterIndex, why }) => [adapterIndex, why])).toEqual([
      [2, expect.stringContaining("software: a pool takes it with { software: 'allow' }")],
      [3, 'opengles shows GPUs again that vulkan shows'],
      [4, 'it is adapter 0 through another backend (vulkan)'],
      [5, 'it computes nothing'],
    ]);
  });

  it('are software ones on request', () => {
    expect(usableAdapters(list, 'allow').usable.map(({ index }) => index)).toEqual([0, 1, 2]);
  });

  it('are what there is, where only a lesser backend shows it', () => {
    expect(usableAdapters([entry(0, 'GeForce', 'opengles'), entry(1, 'llvmpipe', 'vulkan', true)], 'refuse').usable).toHaveLength(1);
  });
});

describe('identical GPUs', () => {
  const listed = `selectable devices:
  GPU 0: 10de:2335 "NVIDIA H200" discrete GPU 0000:00:07.0
  GPU 1: 10de:2335 "NVIDIA H200" discrete GPU 0000:00:08.0
  GPU 2: 10005:0 "llvmpipe (LLVM 15.0.6, 256 bits)" CPU
`;
  const h200 = { backend: 'vulkan', name: 'NVIDIA H200' };

  it('are read from the list of the device-select layer', () => {
    expect(parseSelectableGpus(listed)).toEqual([
      { name: 'NVIDIA H200', pciAddress: '0000:00:07.0' },
      { name: 'NVIDIA H200', pciAddress: '0000:00:08.0' },
      { name: 'llvmpipe (LLVM 15.0.6, 256 bits)' },
    ]);
    expect(parseSelectableGpus('error: no layer\n')).toEqual([]);
    expect(primeName('0000:00:07.0')).toBe('pci-0000_00_07_0');
  });

  it('are adapters of their own, each with its place', () => {
    expect(placed(h200, 2, { gpus: parseSelectableGpus(listed) })).toEqual({
      entries: [
        { ...h200, pciAddress: '0000:00:07.0' },
        { ...h200, pciAddress: '0000:00:08.0' },
      ],
      notes: [],
    });
  });

  it('are one adapter and a note where the layer is missing or lists too few', () => {
    expect(placed(h200, 2, { gpus: [], problem: 'no layer' })).toEqual({
      entries: [h200],
      notes: ['2 adapters are named NVIDIA H200 (vulkan) and only the first can be reached: no layer'],
    });
    expect(placed(h200, 3, { gpus: parseSelectableGpus(listed) }).notes[0]).toContain('lists 2 of them');
  });

  it('take turns in the environment, which is put back', async () => {
    const before = process.env['DRI_PRIME'];
    const seen: (string | undefined)[] = [];
    const look = async (): Promise<void> => {
      seen.push(process.env['DRI_PRIME']);
      await turn();
      seen.push(process.env['DRI_PRIME']);
    };
    const failing = withPrime('0000:00:09.0', () => Promise.reject(new Error('no driver')));
    await Promise.all([withPrime('0000:00:07.0', look), withPrime('0000:00:08.0', look), expect(failing).rejects.toThrow('no driver')]);
    expect(seen).toEqual(['pci-0000_00_07_0', 'pci-0000_00_07_0', 'pci-0000_00_08_0', 'pci-0000_00_08_0']);
    expect(process.env['DRI_PRIME']).toBe(before);
  });
});
