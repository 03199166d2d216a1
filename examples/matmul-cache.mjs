// A two-layer perceptron whose weights stay on the device, one of them quantised.
import { GpuMatmulCache } from 'centella';

const [inputs, hidden, outputs, rows] = [256, 512, 10, 3];
/**
 * @param {number} n
 * @param {number} scale
 */
const random = (n, scale) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 78.233) * scale);

const cache = await GpuMatmulCache.create();
await cache.uploadWeight('hidden', random(hidden * inputs, 0.1), hidden, inputs, { type: 'q8_0' });
await cache.uploadWeight('output', random(outputs * hidden, 0.1), outputs, hidden);
console.log(`${cache.weightCount} weights in ${cache.weightBytes} bytes`);

const x = random(rows * inputs, 1);
const h = (await cache.matmulCached('hidden', x, rows)).map((value) => Math.max(0, value));
const y = await cache.matmulCached('output', h, rows);
console.log(`${rows} rows of ${outputs}:`, [...y.subarray(0, 4)].map((value) => value.toFixed(3)).join(' '), '...');

cache.dispose();
process.exit(0);
