// Views of one array, cut into tiles, and reductions by the 16 x 16 tile tree.
import { PartitionView, SumOp, TensorView, tiledMax2d, tiledReducePartial, tiledSum2d } from 'centella';

const data = Float32Array.from({ length: 20 * 20 }, (_, i) => i % 7);
const matrix = TensorView.over(data, [20, 20]);

const middle = matrix.sliceDim(0, 5, 15).sliceDim(1, 5, 15);
console.log('middle:', middle.shape, 'starts at element', middle.offset);
console.log('transposed strides:', matrix.transpose(0, 1).strides);

const tiles = new PartitionView(matrix, [16, 16]);
for (const tile of tiles.iterTiles()) console.log('tile', tile.start, tile.size, tile.isEdge ? 'at the edge' : '');

console.log('partial sums:', [...tiledReducePartial(SumOp, data, 20, 20)]);
console.log('sum', tiledSum2d(matrix), 'of the middle', tiledSum2d(middle), 'largest', tiledMax2d(matrix));
