/** NAT and DiNAT, built here from the library's ops and layers under the official names, against goldens. */
import { describe, test } from 'vitest';
import { add, concat, linear, mean, mul, NeighborhoodAttention2D, pad, slice, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { checkGolden, type GoldenCase } from './golden_case.ts';
import { channelsLast, Layers, MODEL, setting } from './layers.ts';

const list = (g: GoldenCase, name: string): readonly number[] => g.config[name] as unknown as readonly number[];

describe('NAT and DiNAT', () => {
  function block(w: Layers, x: Tensor, heads: number, kernelSize: number, dilation: number, scaled: boolean): Tensor {
    const layer = new NeighborhoodAttention2D(x.shape[3], { heads, kernelSize, dilation, rpb: true });
    layer.to(x.device);
    layer.loadStateDict(
      Object.fromEntries(Object.keys(layer.stateDict()).map((key) => [key, w.weight(`attn.${key}`)])),
    );
    const gamma = (t: Tensor, name: string): Tensor => (scaled ? mul(t, w.weight(name)) : t);
    const first = add(x, gamma(layer.forward(w.norm(x, 'norm1')), 'gamma1'));
    return add(first, gamma(w.mlp(w.norm(first, 'norm2')), 'gamma2'));
  }

  /** Levels of blocks with `merge` between them, then the head. */
  function model(g: GoldenCase, start: Tensor, levels: string, merge: (w: Layers, x: Tensor) => Tensor): Tensor {
    const w = new Layers(g);
    const dilations = g.config.dilations as unknown as readonly (readonly number[])[] | undefined;
    const x = list(g, 'depths').reduce((entry, depth, l) => {
      const level = w.at(`${levels}.${l}`);
      let t = entry;
      for (let b = 0; b < depth; b++)
        t = block(level.at(`blocks.${b}`), t, list(g, 'num_heads')[l], setting(g, 'kernel_size'), dilations?.[l][b] ?? 1, 'layer_scale' in g.config); // prettier-ignore
      return l < 3 ? merge(level.at('downsample'), t) : t;
    }, start);
    return w.linear(mean(w.norm(x, 'norm'), [1, 2]), 'head');
  }

  const halves = { stride: 2, padding: 1 };

  test.each(['nat_model_tiny', 'dinat_model_tiny'])('%s', (name) =>
    checkGolden(
      name,
      (g) => {
        const w = new Layers(g, 'patch_embed.');
        const stem = w.conv(w.conv(channelsLast(g.input('x')), 'proj.0', halves), 'proj.1', halves);
        const merge = (level: Layers, x: Tensor): Tensor =>
          level.norm(level.conv(x, 'reduction', { ...halves, bias: false }), 'norm');
        return { y: model(g, w.norm(stem, 'norm'), 'levels', merge) };
      },
      MODEL,
    ),
  );

  test('dinat_s_model_tiny', () =>
    checkGolden(
      'dinat_s_model_tiny',
      (g) => {
        const w = new Layers(g, 'patch_embed.');
        const even = (x: Tensor, to: number): Tensor =>
          pad(x, [[0, 0], [0, -x.shape[1] & (to - 1)], [0, -x.shape[2] & (to - 1)], [0, 0]]); // prettier-ignore
        const stem = w.norm(w.conv(even(channelsLast(g.input('x')), 4), 'proj', { stride: 4 }), 'norm');
        const merge = (level: Layers, x: Tensor): Tensor => {
          const whole = even(x, 2);
          const [rows, columns] = whole.shape.slice(1, 3);
          const quarter = (i: number, j: number): Tensor => slice(slice(whole, 1, i, rows, 2), 2, j, columns, 2);
          const joined = concat([quarter(0, 0), quarter(1, 0), quarter(0, 1), quarter(1, 1)], 3);
          return linear(level.norm(joined, 'norm'), level.weight('reduction.weight'));
        };
        return { y: model(g, stem, 'layers', merge) };
      },
      MODEL,
    ));
});
