import { native } from '../native.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { FoveaError } from '../errors.ts';
import { expectSetting, Optimizer, type ParameterGroup } from './optimizer.ts';

export interface SgdSettings {
  /** Learning rate. Default 1e-2. */
  lr: number;
  /** Default 0: no momentum. */
  momentum: number;
  /** Looks ahead along the momentum; needs momentum > 0. Default false. */
  nesterov: boolean;
  /** Added to the gradient, times the parameter (L2). Default 0. */
  weightDecay: number;
}

/**
 * Stochastic gradient descent with momentum as PyTorch defines it: m = momentum m + g (m = g at a parameter's first step), p -= lr m.
 *
 * Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning" (Nesterov form).
 */
export class SGD extends Optimizer<SgdSettings> {
  constructor(params: Iterable<Tensor> | Iterable<ParameterGroup<SgdSettings>>, settings: Partial<SgdSettings> = {}) {
    super(params, settings, { lr: 1e-2, momentum: 0, nesterov: false, weightDecay: 0 });
  }

  protected override check({ lr, momentum, weightDecay, nesterov }: SgdSettings): void {
    for (const [name, value] of Object.entries({ lr, momentum, weightDecay })) expectSetting(name, value);
    if (nesterov && !(momentum > 0))
      throw new FoveaError('ERR_ARGUMENT', `SGD: nesterov needs momentum > 0, got ${momentum}`);
  }

  protected override update(params: readonly Tensor[], settings: SgdSettings): void {
    const { lr, momentum, nesterov, weightDecay } = settings;
    // Zero state makes the first step m = g, with no case of its own.
    native().sgdStep(
      params.map((t) => t.handle),
      params.map((t) => (t.grad as Tensor).handle),
      params.map((t) => (momentum === 0 ? null : this.state(t, 'momentum').handle)),
      this.masters(params),
      lr,
      momentum,
      weightDecay,
      nesterov,
    );
  }
}
