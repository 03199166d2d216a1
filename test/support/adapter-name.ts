/** Which adapter this test process is for, without opening it. */

import { type TestAdapterName, testAdapterNames } from '../../scripts/setup/adapters.mjs';

/** The adapter that this process must test. Throws outside the device projects. */
export function testAdapterName(): TestAdapterName {
  const chosen = process.env['CENTELLA_TEST_ADAPTER'];
  const name = testAdapterNames.find((entry) => entry === chosen);
  if (name === undefined) throw new Error('device tests belong in test/device: only their projects choose an adapter');
  return name;
}
