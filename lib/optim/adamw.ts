import { native } from '../native.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { expectSetting, Optimizer, type ParameterGroup } from './optimizer.ts';

export interface AdamWSettings {
  /** Learning rate. Default 1e-3. */
  lr: number;
  /** Decay rates of the first and second moment. Default [0.9, 0.999]. */
  betas: readonly [number, number];
  /** Added to the root of the second moment. Default 1e-8. */
  eps: number;
  /** Decoupled weight decay. Default 0.01. */
  weightDecay: number;
}

/**
 * Adam with decoupled weight decay, one fused kernel for all parameters of a group; PyTorch's formula and defaults.
 *
 * Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
 */
export class AdamW extends Optimizer<AdamWSettings> {
  constructor(
    params: Iterable<Tensor> | Iterable<ParameterGroup<AdamWSettings>>,
    settings: Partial<AdamWSettings> = {},
  ) {
    super(params, settings, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 });
  }

  protected override check({ lr, betas, eps, weightDecay }: AdamWSettings): void {
    for (const [name, value] of Object.entries({ lr, eps, weightDecay })) expectSetting(name, value);
    for (const beta of betas) expectSetting('beta', beta, 1);
  }

  protected override update(params: readonly Tensor[], settings: AdamWSettings, step: number): void {
    const { lr, betas, eps, weightDecay } = settings;
    native().adamwStep(
      params.map((t) => t.handle),
      params.map((t) => (t.grad as Tensor).handle),
      params.map((t) => this.state(t, 'mean').handle),
      params.map((t) => this.state(t, 'square').handle),
      this.masters(params),
      lr,
      betas[0],
      betas[1],
      eps,
      weightDecay,
      step,
    );
  }
}
