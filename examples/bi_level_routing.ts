/** Bi-level routing on an image with three blobs: what a pixel looks at, and which regions its own region was sent to. */
import { biLevelRoutingAttention, biLevelRoutingCost, denseCost, eye, reshape, tensor } from '../lib/index.ts';
import { shade } from './draw.ts';

const SIZE = 15;
const REGIONS = 5;
const blobs = [[3, 3, 1], [11, 4, 1], [8, 12, -1]]; // prettier-ignore
const features = Array.from({ length: SIZE * SIZE }, (_, p) => {
  const [i, j] = [Math.floor(p / SIZE), p % SIZE];
  const near = blobs.map(([y, x, sign]) => sign * Math.exp(-((i - y) ** 2 + (j - x) ** 2) / 8));
  const light = near.reduce((a, b) => a + b, 0);
  return [3 * light, 1 - Math.abs(light), i / SIZE, j / SIZE];
}).flat();
const image = tensor(features, [1, SIZE, SIZE, 4], { dtype: 'f32' });
// With the identity as values the output of a pixel is what it takes from each pixel.
const values = reshape(eye(SIZE * SIZE), [1, SIZE, SIZE, SIZE * SIZE]);
const { out, routing } = biLevelRoutingAttention(image, image, values, {
  heads: 1,
  regions: REGIONS,
  topK: 4,
  scale: 2,
  returnRouting: true,
});
console.log(`the image\n${shade(features.filter((_, i) => i % 4 === 0), SIZE, SIZE, false)}\n`); // prettier-ignore
const weights = out.dataSync() as Float32Array;
const chosen = routing.indices.dataSync() as Int32Array;
for (const [i, j] of [
  [3, 3],
  [8, 12],
]) {
  const at = (i * SIZE + j) * SIZE * SIZE;
  const region = Math.floor((i * REGIONS) / SIZE) * REGIONS + Math.floor((j * REGIONS) / SIZE);
  console.log(
    `pixel (${i}, ${j}) of region ${region} looks at regions ${chosen.slice(4 * region, 4 * region + 4).join(', ')}`,
  );
  console.log(`${shade(weights.slice(at, at + SIZE * SIZE), SIZE, SIZE, false)}\n`);
}
const sizes = { height: 56, width: 56, channels: 64, heads: 2, regions: 7, topK: 4 };
const dense = denseCost({ heads: 2, length: 56 * 56, dim: 32 }).flops;
console.log(`56 x 56: ${(dense / biLevelRoutingCost(sizes).flops).toFixed(1)} x fewer operations than full attention`);
