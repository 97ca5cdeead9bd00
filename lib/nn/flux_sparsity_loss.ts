import { FoveaError } from '../errors.ts';
import { add, mul, sub } from '../ops/binary.ts';
import { indexSelect } from '../ops/embedding.ts';
import { rand } from '../ops/random.ts';
import { mean, sum } from '../ops/reduce.ts';
import { abs, square } from '../ops/unary.ts';
import { tensor } from '../tensor/create.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

/**
 * Pulls the share of sparse layers of each prompt to a target, beside the language model's own loss.
 *
 *     s = 1 - mean over layers of z,   loss = mean over tasks of the mean over their prompts of lambda1 |s - target| + lambda2 (s - target)^2
 *
 * Each task has its own lambda1 and lambda2 (parameters, drawn from [0, 0.5)). They are multipliers: minimise the loss in the routers and
 * maximise it in them, with an optimizer of their own over negated gradients. Without tasks the loss is the mean of |s - target|.
 *
 * Keys: lambda1, lambda2, [tasks] each. Source: Qiu et al., "Flux Attention", 2026.
 */
export class FluxSparsityLoss extends Module {
  lambda1: Tensor | null;
  lambda2: Tensor | null;

  /** @param tasks how many tasks have multipliers of their own; 0 = none */
  constructor(tasks = 0) {
    super();
    const multipliers = (): Tensor | null => (tasks > 0 ? parameter(rand([tasks], { low: 0, high: 0.5 })) : null);
    this.lambda1 = multipliers();
    this.lambda2 = multipliers();
  }

  /**
   * z [batch, layers], the routers' decisions of each prompt; `target` the wanted share of sparse layers, one for all or one a prompt;
   * `tasks` the task of each prompt, needed exactly when the loss has multipliers. Gives a scalar.
   *
   * @throws FoveaError ERR_SHAPE where z is not [batch, layers] or the lists don't have batch entries; ERR_ARGUMENT for a task out of range
   */
  override forward(z: Tensor, target: number | readonly number[], tasks?: readonly number[]): Tensor {
    const [batch] = z.shape;
    const targets = typeof target === 'number' ? Array<number>(batch).fill(target) : target;
    if (z.rank !== 2 || targets.length !== batch || (tasks?.length ?? 0) !== (this.lambda1 ? batch : 0))
      throw new FoveaError(
        'ERR_SHAPE',
        `FluxSparsityLoss: z ${shapeText(z.shape)} with ${targets.length} targets and ${tasks?.length ?? 0} tasks; expected [batch, layers], ` +
          `one target or one a prompt, and ${this.lambda1 ? 'a task a prompt' : 'no tasks'}`,
      );
    const short = sub(sub(1, mean(z, 1)), tensor(targets, [batch], { dtype: z.dtype, device: z.device }));
    if (!this.lambda1 || !this.lambda2 || !tasks) return mean(abs(short));
    const count = this.lambda1.shape[0];
    const wrong = tasks.find((task) => !Number.isInteger(task) || task < 0 || task >= count);
    if (wrong !== undefined)
      throw new FoveaError('ERR_ARGUMENT', `FluxSparsityLoss: task ${wrong}, expected 0 to ${count - 1}`);
    const prompts = new Map<number, number>();
    for (const task of tasks) prompts.set(task, (prompts.get(task) ?? 0) + 1);
    const share = tasks.map((task) => 1 / (prompts.size * (prompts.get(task) ?? 1)));
    const at = tensor(Int32Array.from(tasks), [batch], { device: z.device });
    const [first, second] = [this.lambda1, this.lambda2].map((lambda) => indexSelect(lambda, 0, at));
    const terms = add(mul(first, abs(short)), mul(second, square(short)));
    return sum(mul(terms, tensor(share, [batch], { dtype: z.dtype, device: z.device })));
  }
}
