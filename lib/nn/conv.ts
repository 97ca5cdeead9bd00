import { expectCount } from '../attention/checks.ts';
import { FoveaError } from '../errors.ts';
import { CONV2D_OPTIONS, conv2d, type Conv2dOptions } from '../ops/conv2d.ts';
import { pairOf, type Pair } from '../ops/image_windows.ts';
import { rand } from '../ops/random.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

export interface Conv2dLayerOptions extends Conv2dOptions {
  /** Default true. */
  readonly bias?: boolean;
}

const LAYER_OPTIONS: OptionNames<Conv2dLayerOptions> = { ...CONV2D_OPTIONS, bias: true };

/**
 * Convolution of images: weight [out, in / groups, rows, columns], bias [out], both uniform in +-1 / sqrt(in / groups x rows x columns) at
 * first (PyTorch's default). Keys: weight, bias.
 */
export class Conv2d extends Module {
  weight: Tensor;
  bias: Tensor | null;
  readonly options: Conv2dOptions;

  /** `kernel`: rows and columns of the filters. Throws ERR_ARGUMENT where groups do not divide both channel counts. */
  constructor(inChannels: number, outChannels: number, kernel: Pair, options: Conv2dLayerOptions = {}) {
    super();
    expectOptions('Conv2d', options, LAYER_OPTIONS);
    const { bias = true, ...settings } = options;
    const { groups = 1 } = settings;
    for (const [name, value] of Object.entries({ inChannels, outChannels })) expectCount('Conv2d', name, value, 0);
    expectCount('Conv2d', 'groups', groups);
    if (inChannels % groups !== 0 || outChannels % groups !== 0)
      throw new FoveaError('ERR_ARGUMENT', `Conv2d: ${groups} groups do not divide ${inChannels} and ${outChannels}`);
    const [rows, columns] = pairOf(kernel);
    for (const side of [rows, columns]) expectCount('Conv2d', 'kernel', side);
    const high = 1 / Math.sqrt(Math.max(1, (inChannels / groups) * rows * columns));
    this.weight = parameter(rand([outChannels, inChannels / groups, rows, columns], { low: -high, high }));
    this.bias = bias ? parameter(rand([outChannels], { low: -high, high })) : null;
    this.options = settings;
  }

  /** x [batch, in, height, width], or as `layout` says, to the same with `out` channels. */
  override forward(x: Tensor): Tensor {
    return conv2d(x, this.weight, this.bias, this.options);
  }
}
