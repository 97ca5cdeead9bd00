/** haloAttention() against golden vectors of the published layer, values and gradients, and its limits. */
import { describe, expect, test } from 'vitest';
import { haloAttention, mean, neighborhoodAttention, tensor, zeros, type Tensor } from '../lib/index.ts';
import { checkGolden, GOLDENS } from './halo_cases.ts';
import { numbers, uniform } from './inputs.ts';
import { expectClose } from './tolerance.ts';

test.each(GOLDENS)('golden halo_attn_%s', (name) => checkGolden(name));

const image = (seed: number, shape: readonly number[]): Tensor =>
  tensor(uniform(shape.reduce((n, e) => n * e, 1), seed), shape, { dtype: 'f32' }); // prettier-ignore

test('without a halo it is attention in blocks', () => {
  const shape = [2, 6, 9, 2, 5];
  const [q, k, v] = [image(1, shape), image(2, shape), image(3, shape)];
  const blocked = neighborhoodAttention(q, k, v, { kernelSize: 3, stride: 3 });
  expectClose(numbers(haloAttention(q, k, v, { blockSize: 3 })), numbers(blocked));
});

test('positions outside the image have weight', () => {
  const [q, v] = [zeros([1, 2, 2, 1, 4]), image(1, [1, 2, 2, 1, 4])];
  const out = numbers(haloAttention(q, q, v, { blockSize: 2, haloSize: 1 }));
  const average = numbers(mean(v, [1, 2])).map((x) => (x * 4) / 16);
  expectClose(out.slice(0, 4), average);
});

describe('refusals', () => {
  const t = (...shape: number[]): Tensor => zeros(shape);
  test.each<[string, () => unknown]>([
    ['blocks that do not divide', () => haloAttention(t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 4 })],
    ['rank', () => haloAttention(t(1, 6, 6, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3 })],
    ['queries', () => haloAttention(t(1, 4, 6, 1, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3 })],
    ['heads', () => haloAttention(t(1, 6, 6, 2, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3 })],
    ['tables', () => haloAttention(t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), t(1, 6, 6, 1, 4), { blockSize: 3, relative: { height: t(4, 4), width: t(5, 4) } })],
  ])('%s', (_name, fn) => expect(fn).toThrow(/haloAttention/)); // prettier-ignore
});
