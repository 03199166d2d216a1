/**
 * Text of a radix search for a cut: where, from the largest down, the number of candidates or the sum of their weights just reaches what is wanted. A round is a histogram of 8 bits. Weights
 * are whole numbers, so that their sums are the same in any order.
 */

/** Parts of a unit of weight: a sum is (units, parts), and the sum of all weights less than 2^24 units. 2^18 weights of 2^-18 of the sum each keep 19 bits. */
const parts = 8192;
export const histogramBytes = 2 * 256 * 4 + 16 * 8 + 24;

export const histogramFunctions = `struct Crossing {
  exists: u32,
  bin: u32,
  above: vec2<u32>,
  here: vec2<u32>,
}

var<workgroup> units: array<atomic<u32>, 256>;
var<workgroup> partials: array<atomic<u32>, 256>;
var<workgroup> blocks: array<vec2<u32>, 16>;
var<workgroup> found: Crossing;

fn clear(local: u32) {
  workgroupBarrier();
  if (local < 256u) {
    atomicStore(&units[local], 0u);
    atomicStore(&partials[local], 0u);
  }
  workgroupBarrier();
}

fn binSum(bin: u32) -> vec2<u32> {
  return vec2<u32>(atomicLoad(&units[bin]), atomicLoad(&partials[bin]));
}

fn carried(sum: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(sum.x + sum.y / ${parts}u, sum.y % ${parts}u);
}

fn less(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x < b.x || (a.x == b.x && a.y < b.y);
}

fn minus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(a.x - b.x - select(0u, 1u, a.y < b.y), a.y + select(0u, ${parts}u, a.y < b.y) - b.y);
}

/** A weight in units and parts. */
fn fixed(weight: f32) -> vec2<u32> {
  let whole = floor(weight);
  return vec2<u32>(u32(whole), u32(round((weight - whole) * ${parts}.0)));
}

/** What sums have to reach, in units and parts: more than 0. */
fn goal(sum: f32) -> vec2<u32> {
  let wanted = vec2<u32>(u32(sum), u32(fract(sum) * ${parts}.0));
  return select(wanted, vec2<u32>(0u, 1u), all(wanted == vec2<u32>(0u)));
}

fn unitsOf(sum: vec2<u32>) -> f32 {
  return f32(sum.x) + f32(sum.y) / ${parts}.0;
}

/** The highest bin at which the sum from the top reaches \`wanted\` (more than 0). */
fn crossing(wanted: vec2<u32>, local: u32) -> Crossing {
  workgroupBarrier();
  if (local < 16u) {
    var sum = vec2<u32>(0u);
    for (var i = 0u; i < 16u; i++) { sum += binSum(16u * local + i); }
    blocks[local] = sum;
  }
  if (local == 0u) { found.exists = 0u; }
  workgroupBarrier();
  if (local < 256u) {
    let next = local / 16u + 1u;
    var above = vec2<u32>(0u);
    for (var block = next; block < 16u; block++) { above += blocks[block]; }
    for (var bin = local + 1u; bin < 16u * next; bin++) { above += binSum(bin); }
    let here = binSum(local);
    if (less(carried(above), wanted) && !less(carried(above + here), wanted)) { found = Crossing(1u, local, above, here); }
  }
  return workgroupUniformLoad(&found);
}
`;
