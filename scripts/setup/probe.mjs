// Run as a process of its own in the environment of one adapter: prints the adapter's description, or nothing where Dawn finds none.
import { create } from 'webgpu';

const gpu = create([]);
// Dawn dies when the object that `create` returns is collected while it is in use.
Object.assign(globalThis, { gpu });
const adapter = await gpu.requestAdapter();
process.stdout.write(adapter?.info.description ?? '');
process.exit(0);
