/** Croc's pool of learned tokens: the golden of both assignments, gradients, and metrics. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { assignTokens, gather, grad, replaceTokens, tensor, tokenDistances, TokenPool, type DeviceName, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { useCuda } from './cuda/device.ts';
import { noise } from './gradient_check.ts';
import { numbers } from './inputs.ts';
import { expectClose } from './tolerance.ts';

const cuda = useCuda();
const golden = fileURLToPath(new URL('goldens/croc.prompt_pool.safetensors', import.meta.url));

describe.each(['cpu', 'cuda'] as const)('golden croc.prompt_pool on %s', (device: DeviceName) => {
  it.skipIf(device === 'cuda' && cuda.skip).each(['nearest', 'hungarian'] as const)('%s', (method) => {
    using file = loadSafetensors(golden);
    const stored = (key: string): Tensor => file.get(key);
    const [image, pool] = ['input.image_tokens', 'input.prompt_pool'].map((key) => stored(key).to(device).detach());
    const replaced = [...numbers(stored('input.replace_mask'))].flatMap((m, i) => (m ? [i] : []));
    const positions = tensor(Int32Array.from(replaced), [1, replaced.length], { dtype: 'i32', device });
    const chosen = gather(image.unsqueeze(0), 1, positions.unsqueeze(2));
    const distances = numbers(tokenDistances(chosen, pool, 'l2'));
    expectClose(distances, numbers(stored('output.distances')));

    const layer = new TokenPool(pool.shape[0], pool.shape[1], { method, metric: 'l2' }).to(device);
    layer.loadStateDict({ mask_token: pool });
    image.requiresGrad = true;
    const { tokens, indices } = layer.forward(image.unsqueeze(0), positions);
    expect([...numbers(indices)]).toEqual([...numbers(stored(`output.${method}_indices`))]);
    expectClose(numbers(tokens), numbers(stored(`output.${method}_tokens`)));
    if (method === 'hungarian') {
      const cost = [...numbers(indices)].reduce((total, j, i) => total + distances[i * pool.shape[0] + j], 0);
      expectClose([cost], numbers(stored('output.hungarian_cost')));
    }
    const seed = stored(`cotangent.output.${method}_tokens`).to(device).unsqueeze(0);
    const [dx, dp] = grad(tokens, [image, layer.mask_token], { gradients: [seed] }) as Tensor[];
    expectClose(numbers(dx), numbers(stored(`grad_${method}.input.image_tokens`)));
    expectClose(numbers(dp), numbers(stored(`grad_${method}.input.prompt_pool`)));
  });
});

describe('token pool', () => {
  const pool = tensor(noise(7 * 5, 1), [7, 5], { dtype: 'f32' });

  it('tokens that are the pool get their own entries, by every method and metric', () => {
    for (const method of ['nearest', 'hungarian'] as const)
      for (const metric of ['cosine', 'l2'] as const)
        expect([...numbers(assignTokens(pool, pool, { method, metric }))]).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });

  it('cosine does not see lengths', () => {
    const tokens = tensor(noise(3 * 5, 2), [3, 5], { dtype: 'f32' });
    expectClose(numbers(tokenDistances(tokens.mul(7), pool)), numbers(tokenDistances(tokens, pool)));
  });

  it('entries taken twice add up their gradients; replaced tokens have none', () => {
    const tokens = tensor(noise(2 * 4 * 5, 3), [2, 4, 5], { dtype: 'f32', requiresGrad: true });
    const own = pool.detach();
    own.requiresGrad = true;
    const positions = tensor([0, 2, 1, 3], [2, 2], { dtype: 'i32' });
    const out = replaceTokens(tokens, positions, own, tensor([6, 6, 1, 6], [2, 2], { dtype: 'i32' }));
    const [dx, dp] = grad(out.sum(), [tokens, own]) as Tensor[];
    expect([...numbers(dx.sum(2))]).toEqual([0, 5, 0, 5, 5, 0, 5, 0]);
    expect([...numbers(dp.sum(1))]).toEqual([0, 5, 0, 0, 0, 0, 15]);
  });

  it('refuses what does not fit', () => {
    const refused = (code: string, fn: () => unknown): void =>
      expect(fn).toThrow(expect.objectContaining({ code }) as Error);
    refused('ERR_SHAPE', () => assignTokens(tensor(noise(8, 1), [2, 4]), pool));
    refused('ERR_SHAPE', () => assignTokens(tensor(noise(40, 1), [8, 5], { dtype: 'f32' }), pool));
    refused('ERR_ARGUMENT', () => assignTokens(pool, pool, { method: 'greedy' as 'nearest' }));
    refused('ERR_ARGUMENT', () => assignTokens(pool, pool, { metric: 'dot' as 'l2' }));
  });
});
