// Work spread over every GPU of the machine; CENTELLA_SOFTWARE=1 takes adapters that render on the CPU as well.
import { GpuCommandBatch, GpuDevicePool } from 'centella';

const software = process.env['CENTELLA_SOFTWARE'] === '1' ? 'allow' : 'refuse';
const pool = await GpuDevicePool.request({ software, devicesPerAdapter: 2 }).catch((error) => {
  console.log(`no pool here (${error.code}): ${error.message}`);
  process.exit(0);
});
console.log(`${pool.size} devices:`, [...pool].map((gpu) => gpu.adapterInfo.name).join(', '));

const sums = await pool.map([1, 2, 3, 4, 5, 6], async (n, gpu) => {
  const batch = new GpuCommandBatch(gpu);
  const total = batch.sum(batch.upload(Float32Array.from({ length: 1000 }, () => n)));
  await batch.execute();
  const [sum] = await batch.read(total);
  batch.dispose();
  return sum;
});
console.log('sums:', sums);
pool.dispose();
process.exit(0);
