import { gradEnabled, result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

/** What to do with one loss per row: 'mean' and 'sum' give a scalar, 'none' keeps them. */
export type Reduction = 'mean' | 'sum' | 'none';

const REDUCTIONS: readonly Reduction[] = ['none', 'sum', 'mean'];

/** Throws ERR_ARGUMENT for an unknown name; the code the addon knows it by otherwise. */
export function reductionCode(op: string, reduction: Reduction): number {
  const code = REDUCTIONS.indexOf(reduction);
  if (code < 0) {
    throw new FoveaError('ERR_ARGUMENT', `${op}: reduction '${String(reduction)}'; expected ${REDUCTIONS.join(', ')}`);
  }
  return code;
}

export interface CrossEntropyOptions {
  /** Rows with this target have no loss, no gradient, and do not count in the mean. Default -100. */
  ignoreIndex?: number;
  /** Share of the target's weight that is spread evenly over all classes, in [0, 1]. Default 0. */
  labelSmoothing?: number;
  /** Default 'mean', over the rows that are not ignored (NaN when all are, as in PyTorch). */
  reduction?: Reduction;
}

const CROSS_ENTROPY_OPTIONS: OptionNames<CrossEntropyOptions> = {
  ignoreIndex: true,
  labelSmoothing: true,
  reduction: true,
};

/**
 * Cross entropy between the softmax of `logits` [N, C] (f32, bf16 or f16) and the classes `targets` [N] (i32, i64 or u8), in natural log;
 * f32. The softmax is computed inside and again in backward; only its log-sum is kept.
 *
 * Throws ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; a target outside [0, C) makes the result reject with ERR_INDEX.
 * Label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor {
  expectTensors('crossEntropy', { logits, targets });
  expectOptions('crossEntropy', options, CROSS_ENTROPY_OPTIONS);
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = 'mean' } = options;
  const code = reductionCode('crossEntropy', reduction);
  if (logits.rank !== 2 || targets.rank !== 1 || logits.shape[0] !== targets.shape[0]) {
    throw new FoveaError(
      'ERR_SHAPE',
      `crossEntropy: logits ${shapeText(logits.shape)} and targets ${shapeText(targets.shape)}; expected [N, C] and [N] (reshape first)`,
    );
  }
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) {
    throw new FoveaError('ERR_ARGUMENT', `crossEntropy: labelSmoothing must be in [0, 1], got ${labelSmoothing}`);
  }
  if (!Number.isInteger(ignoreIndex)) {
    throw new FoveaError('ERR_ARGUMENT', `crossEntropy: ignoreIndex must be an integer, got ${ignoreIndex}`);
  }
  const h = native();
  const [loss, lse, count] = h.crossEntropy(logits.handle, targets.handle, ignoreIndex, labelSmoothing, code);
  if (!gradEnabled() || !logits.requiresGrad) {
    h.release(lse);
    h.release(count);
    return new Tensor(loss);
  }
  const [sums, counted] = [new Tensor(lse), new Tensor(count)];
  const rule = (g: Tensor): Tensor[] => [
    new Tensor(
      native().crossEntropyBackward(
        g.handle,
        logits.handle,
        targets.handle,
        sums.handle,
        counted.handle,
        ignoreIndex,
        labelSmoothing,
        code,
      ),
    ),
  ];
  return result('crossEntropy', loss, [logits], rule, [logits, targets, sums, counted]);
}
