/**
 * The mixed mask of multimodal pretraining: everything before the answer is bidirectional, the answer is causal.
 *
 * Source: Xie et al., "Croc: Pretraining Large Multimodal Models with Cross-Modal Comprehension", 2024. The released code makes the whole
 * prefix (prompt and image) visible to every row: mode 'prefix'. The paper's wording, image tokens among themselves and text causal, is
 * 'visualOnly'.
 */
import { FoveaError } from '../errors.ts';
import { mask, type Mask } from '../mask/mask.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';

export interface MixedMaskOptions {
  /** Ids [batch, length]; the first that is not `ignore` ends the prefix. Needed for 'prefix'. */
  readonly labels?: Tensor;
  /** Label of tokens without a loss. Default -100. */
  readonly ignore?: number;
  /** [batch, length], not 0 for real tokens: padding behind the prefix is not seen. */
  readonly attentionMask?: Tensor;
  /** Default 'prefix'. */
  readonly mode?: 'prefix' | 'visualOnly';
  /** Which tokens are of the image, [batch, length], not 0 for those. Needed for 'visualOnly'. */
  readonly imageTokens?: Tensor;
}

const MIXED_MASK_OPTIONS: OptionNames<MixedMaskOptions> = {
  labels: true,
  ignore: true,
  attentionMask: true,
  mode: true,
  imageTokens: true,
};

function rows(name: string, t: Tensor | undefined, like?: Tensor): number[][] {
  if (!t || t.rank !== 2 || (like && !sameShape(t.shape, like.shape)))
    throw new FoveaError(
      'ERR_SHAPE',
      `mixedAttentionMask: ${name} is ${t ? shapeText(t.shape) : 'missing'}, expected ${like ? shapeText(like.shape) : '[batch, length]'}`,
    );
  const values = Array.from(t.dataSync() as Int32Array, Number);
  return Array.from({ length: t.shape[0] }, (_, b) => values.slice(b * t.shape[1], (b + 1) * t.shape[1]));
}

/**
 * A mask for attention(). Mode 'prefix': key j is visible to query i where j <= i and j is no padding, or j is before the first label that
 * counts (everything, padding too, where no label does, as released). Mode 'visualOnly': j <= i, or both are image tokens; padding is not seen.
 * The tensors are read now.
 *
 * @throws FoveaError ERR_SHAPE for a tensor that is missing or of another shape, ERR_ARGUMENT for an unknown mode
 */
export function mixedAttentionMask(options: MixedMaskOptions): Mask {
  expectOptions('mixedAttentionMask', options, MIXED_MASK_OPTIONS);
  const { mode = 'prefix', ignore = -100 } = options;
  if (mode === 'prefix') {
    const labels = rows('labels', options.labels);
    const valid = options.attentionMask
      ? rows('attentionMask', options.attentionMask, options.labels).map((row) => row.map((x) => Number(x !== 0)))
      : labels.map((row) => row.map(() => 1));
    const prefix = labels.map((row) => {
      const first = row.findIndex((label) => label !== ignore);
      return first < 0 ? row.length : first;
    });
    const crocPrefix = mask(
      ({ b, q, kv }, { prefix, valid }) => kv < prefix[b] || (kv <= q && valid[b][kv] !== 0),
      { prefix: Int32Array.from(prefix), valid },
    ); // prettier-ignore
    return crocPrefix;
  }
  if (mode !== 'visualOnly')
    throw new FoveaError(
      'ERR_ARGUMENT',
      `mixedAttentionMask: mode is '${String(mode)}', expected 'prefix' or 'visualOnly'`,
    );
  const image = rows('imageTokens', options.imageTokens).map((row) => row.map((x) => Number(x !== 0)));
  const valid = options.attentionMask
    ? rows('attentionMask', options.attentionMask, options.imageTokens).map((row) => row.map((x) => Number(x !== 0)))
    : image.map((row) => row.map(() => 1));
  return mask(
    ({ b, q, kv }, { image, valid }) => valid[b][kv] !== 0 && (kv <= q || (image[b][q] !== 0 && image[b][kv] !== 0)),
    { image, valid },
  );
}
