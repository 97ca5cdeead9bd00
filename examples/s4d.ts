/** S4D: the kernel of each feature, and the response to two impulses. */
import { ones, s4d, tensor, type S4dParameters } from '../lib/index.ts';
import { shade } from './draw.ts';

const [features, states, length] = [6, 4, 60];
const parameters: S4dParameters = {
  c: ones([1, features, states, 2]),
  logDt: tensor(Array.from({ length: features }, (_, i) => Math.log(0.02 * 1.6 ** i))),
  logWReal: tensor([Array.from({ length: states }, () => Math.log(0.5))]),
  wImag: tensor([Array.from({ length: states }, (_, n) => Math.PI * n)]),
  d: ones([1, features]).mul(0),
};
const impulses = tensor(Array.from({ length: features * length }, (_, i) => Number([0, 30].includes(i % length))), [1, features, length], { dtype: 'f32' }); // prettier-ignore
const y = s4d(impulses, parameters).dataSync() as Float32Array;
console.log(`features by time, impulses at 0 and 30; steps grow downwards\n${shade(y, features, length)}`);
