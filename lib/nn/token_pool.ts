import { noGrad } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { assignment } from '../ops/assignment.ts';
import { add, div, maximum, mul, sub } from '../ops/binary.ts';
import { cast, to } from '../ops/copy.ts';
import { embedding } from '../ops/embedding.ts';
import { gather, scatter } from '../ops/gather.ts';
import { matmul } from '../ops/matmul.ts';
import { randn } from '../ops/random.ts';
import { argMin, norm, sum } from '../ops/reduce.ts';
import { sqrt, square } from '../ops/unary.ts';
import { transpose, unsqueeze } from '../ops/view.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { Module, parameter } from './module.ts';

/** Euclidean distance, or 1 - cosine. */
export type TokenMetric = 'cosine' | 'l2';

export interface AssignTokensOptions {
  /** Each token the nearest entry; or ('hungarian') each an entry of its own, at the least total distance. Default 'hungarian'. */
  readonly method?: 'nearest' | 'hungarian';
  /**
   * Default 'cosine'. By 'l2' tokens of unit length all choose the shortest entry of a normal pool of many dimensions, as in the released code.
   */
  readonly metric?: TokenMetric;
}

const ASSIGN_TOKENS_OPTIONS: OptionNames<AssignTokensOptions> = { method: true, metric: true };

/** Distances of tokens [..., n, dim] from the entries of a pool [entries, dim]: [..., n, entries] in f32, without gradient. */
export function tokenDistances(tokens: Tensor, pool: Tensor, metric: TokenMetric = 'cosine'): Tensor {
  expectTensors('tokenDistances', { tokens, pool });
  if (pool.rank !== 2 || tokens.rank < 2 || tokens.shape.at(-1) !== pool.shape[1])
    throw new FoveaError(
      'ERR_SHAPE',
      `tokenDistances: tokens ${shapeText(tokens.shape)} and pool ${shapeText(pool.shape)}; expected [..., n, dim] and [entries, dim]`,
    );
  if (metric !== 'cosine' && metric !== 'l2')
    throw new FoveaError('ERR_ARGUMENT', `tokenDistances: metric is '${String(metric)}', expected 'cosine' or 'l2'`);
  return noGrad(() => {
    const [a, b] = [tokens, pool].map((t) => cast(t.detach(), 'f32'));
    if (metric === 'cosine') {
      const unit = (t: Tensor): Tensor => div(t, maximum(norm(t, -1, true), 1e-12));
      return sub(1, matmul(unit(a), transpose(unit(b))));
    }
    const squares = add(sum(square(a), -1, true), sum(square(b), -1));
    return sqrt(maximum(sub(squares, mul(matmul(a, transpose(b)), 2)), 0));
  });
}

/**
 * An entry of the pool [entries, dim] for each token [..., n, dim]: i32 [..., n]. The Hungarian method needs n <= entries, and runs on the CPU
 * wherever the tokens are.
 *
 * @throws FoveaError ERR_SHAPE, ERR_ARGUMENT
 */
export function assignTokens(tokens: Tensor, pool: Tensor, options: AssignTokensOptions = {}): Tensor {
  expectOptions('assignTokens', options, ASSIGN_TOKENS_OPTIONS);
  const { method = 'hungarian', metric = 'cosine' } = options;
  const distances = tokenDistances(tokens, pool, metric);
  if (method === 'nearest') return cast(argMin(distances, -1), 'i32');
  if (method !== 'hungarian')
    throw new FoveaError(
      'ERR_ARGUMENT',
      `assignTokens: method is '${String(method)}', expected 'nearest' or 'hungarian'`,
    );
  return to(assignment(to(distances, 'cpu')), distances.device);
}

/**
 * Tokens [batch, n, dim] with those at `positions` (i32 [batch, count], each once) replaced by the entries `indices` (i32 [batch, count]) of the
 * pool [entries, dim]. Differentiable in tokens, where replaced ones have gradient 0, and in the pool, where repeated entries add up.
 */
export function replaceTokens(tokens: Tensor, positions: Tensor, pool: Tensor, indices: Tensor): Tensor {
  return scatter(tokens, 1, unsqueeze(positions, 2), cast(embedding(pool, indices), tokens.dtype));
}

/**
 * The pool of learned tokens of Croc: some visual tokens of an image are replaced by entries that resemble them, and the language model learns to
 * reconstruct what was there. Entries are normal at first. Key: mask_token [entries, dim].
 *
 * Source: Xie et al., "Croc: Pretraining Large Multimodal Models with Cross-Modal Comprehension", 2024, section 3; the released code has
 * { method: 'nearest', metric: 'l2' }.
 */
export class TokenPool extends Module {
  mask_token: Tensor;
  readonly options: AssignTokensOptions;

  constructor(entries: number, dim: number, options: AssignTokensOptions = {}) {
    super();
    expectOptions('TokenPool', options, ASSIGN_TOKENS_OPTIONS);
    this.mask_token = parameter(randn([entries, dim]));
    this.options = options;
  }

  /** Tokens [batch, n, dim] with those at `positions` (i32 [batch, count]) replaced, and the entries they got, i32 [batch, count]. */
  override forward(tokens: Tensor, positions: Tensor): { readonly tokens: Tensor; readonly indices: Tensor } {
    if (tokens.rank !== 3 || positions.rank !== 2 || positions.shape[0] !== tokens.shape[0])
      throw new FoveaError(
        'ERR_SHAPE',
        `TokenPool: tokens ${shapeText(tokens.shape)}, positions ${shapeText(positions.shape)}; expected [batch, n, dim] and [batch, count]`,
      );
    const replaced = noGrad(() => gather(tokens.detach(), 1, unsqueeze(positions, 2)));
    const indices = assignTokens(replaced, this.mask_token, this.options);
    return { tokens: replaceTokens(tokens, positions, this.mask_token, indices), indices };
  }
}
