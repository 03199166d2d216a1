/** Before each file of the hardware project: a machine without a GPU must fail, not test what else there is. */

import { requestTestAdapter } from './adapters.js';

await requestTestAdapter();
