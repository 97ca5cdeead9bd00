/** Aggregated attention on an 8 x 8 image: what three pixels take from each pixel, windows of 3 x 3 and 16 pooled cells. */
import { aggregatedAttention, eye, mean, permute, reshape, select, type Tensor } from '../lib/index.ts';
import { shade, tokens } from './draw.ts';

const side = 8;
const cells = 4;
const { q, k } = tokens(side * side);
const image = (t: Tensor): Tensor => reshape(t, [1, side, side, 1, -1]);
/** Means over 2 x 2 pixels, [1, 1, cells^2, channels]. */
const pool = (t: Tensor): Tensor =>
  reshape(mean(reshape(t, [1, cells, 2, cells, 2, 1, -1]), [2, 4]), [1, 1, cells * cells, -1]);

const values = image(eye(side * side));
const map = aggregatedAttention(image(q), image(k), values, { pooledK: pool(image(k)), pooledV: pool(values) });
const rows = reshape(permute(map, [0, 3, 1, 2, 4]), [side * side, side * side]);
for (const pixel of [0, 27, 62]) {
  const at = `row ${Math.floor(pixel / side)}, column ${pixel % side}`;
  console.log(`${at}:\n${shade(select(rows, 0, pixel).dataSync() as Float32Array, side, side, false)}\n`);
}
