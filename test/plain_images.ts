/** Convolution and pooling of [batch, channels, rows, columns] in plain double precision, for the tests of all devices. */
import { pairOf, type Pair } from '../lib/ops/image_windows.ts';

export interface PlainOptions {
  readonly stride?: Pair;
  readonly padding?: Pair;
  readonly dilation?: Pair;
  readonly groups?: number;
}

type Values = ArrayLike<number>;

/** Shape of the result, and what each window sees: `see(image, channel, window, visit)` calls visit(tap, value), undefined in the border. */
export function plainWindows(shape: readonly number[], kernel: Pair, options: PlainOptions) {
  const [, channels, rows, columns] = shape;
  const [[high, wide], [down, across], [top, left], [apart, beside]] = [
    kernel,
    options.stride ?? 1,
    options.padding ?? 0,
    options.dilation ?? 1,
  ].map(pairOf);
  const size = [
    Math.floor((rows + 2 * top - apart * (high - 1) - 1) / down) + 1,
    Math.floor((columns + 2 * left - beside * (wide - 1) - 1) / across) + 1,
  ];
  const see = (
    x: Values,
    n: number,
    c: number,
    at: number,
    visit: (tap: number, value: number | undefined) => void,
  ): void => {
    const [i, j] = [Math.floor(at / size[1]) * down - top, (at % size[1]) * across - left];
    for (let r = 0; r < high; r++)
      for (let s = 0; s < wide; s++) {
        const [y, z] = [i + r * apart, j + s * beside];
        const inside = y >= 0 && y < rows && z >= 0 && z < columns;
        visit(r * wide + s, inside ? x[((n * channels + c) * rows + y) * columns + z] : undefined);
      }
  };
  return { size, see };
}

/** Shape and values of the convolution. */
export function plainConv2d(
  x: Values,
  shape: readonly number[],
  weight: Values,
  weightShape: readonly number[],
  bias: Values | null,
  options: PlainOptions = {},
): { shape: number[]; values: Float64Array } {
  const [batch] = shape;
  const [out, each, ...kernel] = weightShape;
  const { size, see } = plainWindows(shape, [kernel[0], kernel[1]], options);
  const [pixels, taps] = [size[0] * size[1], kernel[0] * kernel[1]];
  const perGroup = out / (options.groups ?? 1);
  const values = new Float64Array(batch * out * pixels);
  for (let n = 0; n < batch; n++)
    for (let o = 0; o < out; o++)
      for (let p = 0; p < pixels; p++) {
        let sum = bias ? bias[o] : 0;
        for (let c = 0; c < each; c++)
          see(x, n, Math.floor(o / perGroup) * each + c, p, (tap, value) => {
            sum += (value ?? 0) * weight[(o * each + c) * taps + tap];
          });
        values[(n * out + o) * pixels + p] = sum;
      }
  return { shape: [batch, out, ...size], values };
}

/** `pool` of the pixels each window sees, those in the border left out, and the number of its taps. */
export function plainPool(
  x: Values,
  shape: readonly number[],
  kernel: Pair,
  options: PlainOptions,
  pool: (seen: readonly number[], taps: number) => number,
): Float64Array {
  const [batch, channels] = shape;
  const { size, see } = plainWindows(shape, kernel, options);
  const pixels = size[0] * size[1];
  return Float64Array.from({ length: batch * channels * pixels }, (_, at) => {
    const [n, c] = [Math.floor(at / (channels * pixels)), Math.floor(at / pixels) % channels];
    const seen: number[] = [];
    let taps = 0;
    see(x, n, c, at % pixels, (_tap, value) => {
      taps++;
      if (value !== undefined) seen.push(value);
    });
    return pool(seen, taps);
  });
}
