// A chain of elementwise operations on the device: one submit, fused kernels, replayed with new data.
import { GpuCommandBatch, openBackend } from 'centella';

const backend = await openBackend();
console.log(`backend: ${backend.name} (${backend.reason})`);

const batch = new GpuCommandBatch(backend);
const x = batch.upload(Float32Array.of(1, 2, -3, 4));
const offset = batch.upload(Float32Array.of(0.5, 0.5, 0.5, 0.5));
const y = batch.add(batch.scale(batch.relu(x), 2), offset);

await batch.execute();
console.log('relu(x) * 2 + 0.5 =', [...(await batch.read(y))]);

batch.update(x, Float32Array.of(-1, 0, 1, 2));
await batch.execute();
console.log('with new data      =', [...(await batch.read(y))]);

batch.dispose();
backend.dispose();
process.exit(0);
