/** What tests of whole models share. */
import { expect } from 'vitest';
import { add, copyFrom, grad, mul, noGrad, norm, sum, tensor, type Module, type Tensor } from '../../lib/index.ts';
import { noise, sizeOf } from '../gradient_check.ts';
import { numbers } from '../inputs.ts';

export type Model = Module & { forward(x: Tensor): Tensor };

export const noisy = (shape: readonly number[], seed: number): Tensor =>
  tensor(noise(sizeOf(shape), seed), shape, { dtype: 'f32' });

/**
 * Gradients of a model in the image and all parameters against central differences in f32: along directions in which every tensor moves by
 * its gradient's unit vector, up or down, so that a wrong gradient anywhere shows. The logits are weighted by noise.
 */
export function checkModelGradients(model: Model, x: Tensor, step = 1e-4): void {
  const image = x.detach();
  image.requiresGrad = true;
  const leaves = [image, ...model.parameters()];
  const y = model.forward(image);
  const weights = noisy(y.shape, 77);
  const gradients = grad(y, leaves, { gradients: [weights] }) as Tensor[];
  leaves.forEach((t, i) => expect(gradients[i]?.shape, `gradient of leaf ${i}`).toEqual(t.shape));
  const lengths = gradients.map((g) => numbers(norm(g))[0]);
  const units = gradients.map((g, i) => mul(g, 1 / Math.max(lengths[i], 1e-30)));
  const starts = leaves.map((t) => mul(t.detach(), 1));
  const total = lengths.reduce((a, b) => a + b, 0);
  for (const seed of [1, 2, 3]) {
    const signs = [...noise(leaves.length, seed)].map((v) => (seed === 1 ? 1 : Math.sign(v)));
    const at = (delta: number): number =>
      noGrad(() => {
        leaves.forEach((t, i) => copyFrom(t, add(starts[i], mul(units[i], signs[i] * delta))));
        return numbers(sum(mul(model.forward(image), weights)))[0];
      });
    const measured = (at(step) - at(-step)) / (2 * step);
    const expected = lengths.reduce((along, length, i) => along + signs[i] * length, 0);
    expect(Math.abs(measured - expected) / total, `directional derivative ${seed}`).toBeLessThan(5e-3);
  }
  leaves.forEach((t, i) => copyFrom(t, starts[i]));
}
