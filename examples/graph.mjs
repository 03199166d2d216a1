// A graph of one's own: built, fused, planned, run; with its memory drawn and its steps timed.
import { chromeTrace, compile, formatMemoryPlan, formatProfile, GraphBuilder, profileRows } from 'centella';

/** @param {number[]} shape */
const f32 = (...shape) => ({ dtype: /** @type {const} */ ('f32'), shape });
const g = new GraphBuilder();
const x = g.input('x', f32(4, 64));
const gate = g.linear(x, g.param('gate', f32(128, 64)), {}, 'gate');
const up = g.linear(x, g.param('up', f32(128, 64)), {}, 'up');
const hidden = g.binary('mul', g.unary('silu', gate), up, 'gated');
const down = g.linear(hidden, g.param('down', f32(64, 128)), {}, 'down');
g.output('y', g.binary('add', x, down, 'residual'));

const graph = await compile(g.build(), { device: 'auto' });
console.log(`on ${graph.backend.name}: ${graph.backend.reason}`);
for (const { rule, at, reason } of graph.rewrites) console.log(`${rule} at ${at}: ${reason}`);
console.log(formatMemoryPlan(graph.plan));

/** @param {number} n */
const random = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898) / 8);
await graph.setParam('gate', random(128 * 64));
await graph.setParam('up', random(128 * 64));
await graph.setParam('down', random(64 * 128));
const y = (await graph.run({ x: random(4 * 64) })).get('y') ?? new Float32Array();
console.log('y[0..3] =', [...y.subarray(0, 4)].map((value) => value.toFixed(4)).join(' '));

const timings = await graph.profile();
console.log(formatProfile(profileRows(timings)));
console.log(`${chromeTrace(timings).length} bytes of trace for a browser's trace viewer`);

graph.dispose();
process.exit(0);
