import { expect, test } from 'vitest';
import { endCompilations, throughExit } from '../../src/platform/dawn.js';

function device(): { destroyed: number; destroy(): undefined } {
  const made = {
    destroyed: 0,
    destroy(): undefined {
      made.destroyed++;
    },
  };
  return made;
}

test('a process that ends destroys the devices that are compiling, and no others', async () => {
  const [busy, done, failed] = [device(), device(), device()];
  let finish = (_: string): void => undefined;
  const slow = new Promise<string>((resolve) => {
    finish = resolve;
  });
  const works = [throughExit(busy, slow), throughExit(busy, Promise.resolve('first'))];
  expect(await works[1]).toBe('first');
  expect(await throughExit(done, Promise.resolve(1))).toBe(1);
  await expect(throughExit(failed, Promise.reject(new Error('no')))).rejects.toThrow('no');
  endCompilations();
  expect([busy.destroyed, done.destroyed, failed.destroyed]).toEqual([1, 0, 0]);
  finish('late');
  expect(await works[0]).toBe('late');
  endCompilations();
  expect(busy.destroyed).toBe(1);
});
