/** The two blocks of DaViT over images with channels last. */
import { add, attention, channelAttention, depthwiseConv, pad, permute, reshape, slice, type Tensor } from '../lib/index.ts'; // prettier-ignore
import { qkvOf, toTokens, type Layers } from './layers.ts';

/** A block around its attention. */
export function davitBlock(w: Layers, x: Tensor, attend: (attn: Layers, x: Tensor) => Tensor): Tensor {
  const position = (t: Tensor, name: string): Tensor =>
    add(t, depthwiseConv(t, w.weight(`${name}.proj.weight`), w.weight(`${name}.proj.bias`)));
  const first = position(x, 'cpe.0');
  const second = position(add(first, attend(w.at('attn'), w.norm(first, 'norm1'))), 'cpe.1');
  return add(second, w.mlp(w.norm(second, 'norm2')));
}

/** Attention of channels, all pixels in view. */
export function channelBranch(w: Layers, x: Tensor, heads: number): Tensor {
  const [batch, rows, columns, channels] = x.shape;
  const tokens = reshape(x, [batch, rows * columns, channels]);
  return reshape(w.linear(toTokens(channelAttention(...qkvOf(w, tokens, heads))), 'proj'), x.shape);
}

/** Attention within windows, of an image filled up with zeros to whole ones. */
export function windowAttention(w: Layers, x: Tensor, heads: number, window: number): Tensor {
  const [batch, rows, columns, channels] = x.shape;
  const [down, across] = [Math.ceil(rows / window), Math.ceil(columns / window)];
  const image = pad(x, [[0, 0], [0, down * window - rows], [0, across * window - columns], [0, 0]]); // prettier-ignore
  const cut = permute(reshape(image, [batch, down, window, across, window, channels]), [0, 1, 3, 2, 4, 5]);
  const windows = reshape(cut, [batch * down * across, window * window, channels]);
  const out = w.linear(toTokens(attention(...qkvOf(w, windows, heads))), 'proj');
  const back = permute(reshape(out, [batch, down, across, window, window, channels]), [0, 1, 3, 2, 4, 5]);
  const whole = reshape(back, [batch, down * window, across * window, channels]);
  return slice(slice(whole, 1, 0, rows), 2, 0, columns);
}
