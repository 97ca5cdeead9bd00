import { result } from '../autograd/tape.ts';
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { tensor } from '../tensor/create.ts';
import { expectTensors } from '../tensor/expect.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { indexSelect } from './embedding.ts';

export interface PadOptions {
  /** 'constant' (default), 'reflect' (mirrored without the edge), 'replicate' (the edge) or 'circular' (the other end). */
  mode?: 'constant' | 'reflect' | 'replicate' | 'circular';
  /** For 'constant'. Default 0. */
  value?: number;
}

const PAD_OPTIONS: OptionNames<PadOptions> = { mode: true, value: true };

/** Index of the source for position i of an axis of n elements, i from -before to n + after - 1. */
const SOURCES: Record<'reflect' | 'replicate' | 'circular', (i: number, n: number) => number> = {
  reflect: (i, n) => (i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i),
  replicate: (i, n) => Math.min(Math.max(i, 0), n - 1),
  circular: (i, n) => ((i % n) + n) % n,
};

/**
 * `t` with elements added before and after along each axis: one [before, after] per axis, as numpy.pad, or one pair for all. Differentiable.
 * Throws ERR_ARGUMENT for negative counts or an unknown mode, ERR_SHAPE when pairs do not match the rank or a mode needs more elements than
 * there are ('reflect' adds at most n - 1).
 */
export function pad(
  t: Tensor,
  pairs: readonly [number, number] | readonly (readonly [number, number])[],
  options: PadOptions = {},
): Tensor {
  expectTensors('pad', { t });
  expectOptions('pad', options, PAD_OPTIONS);
  const { mode = 'constant', value = 0 } = options;
  if (!Array.isArray(pairs))
    throw new FoveaError(
      'ERR_ARGUMENT',
      `pad: pairs are ${String(pairs)}, expected [before, after], or one such pair per axis`,
    );
  const list = (typeof pairs[0] === 'number' ? t.shape.map(() => pairs) : pairs) as readonly (readonly [
    number,
    number,
  ])[];
  if (list.length !== t.rank) {
    throw new FoveaError('ERR_SHAPE', `pad: ${list.length} pairs for ${shapeText(t.shape)}; expected one per axis`);
  }
  if (list.flat().some((n) => !Number.isInteger(n) || n < 0)) {
    throw new FoveaError('ERR_ARGUMENT', `pad: counts must be non-negative integers, got ${String(list)}`);
  }
  if (mode === 'constant') {
    const handle = native().pad(
      t.handle,
      list.map(([before]) => before),
      list.map(([, after]) => after),
      value,
    );
    const { shape } = t;
    return result('pad', handle, [t], (g) => {
      const h = native();
      const offset = list.reduce(
        (sum, [before], i) => sum + (t.size > 0 ? before * g.strides[i] : 0),
        h.offset(g.handle),
      );
      return [new Tensor(h.view(g.handle, shape, g.strides, offset))];
    });
  }
  const source = Object.hasOwn(SOURCES, mode) ? SOURCES[mode] : null;
  if (!source)
    throw new FoveaError(
      'ERR_ARGUMENT',
      `pad: unknown mode '${String(mode)}'; expected constant, reflect, replicate or circular`,
    );
  return list.reduce((x, [before, after], axis) => {
    if (before === 0 && after === 0) return x;
    const n = x.shape[axis];
    const most = mode === 'reflect' ? n - 1 : n > 0 ? Infinity : 0;
    if (Math.max(before, after) > most) {
      throw new FoveaError(
        'ERR_SHAPE',
        `pad: ${before} and ${after} elements on axis ${axis} of ${shapeText(t.shape)} are too many for '${mode}'`,
      );
    }
    const ids = Int32Array.from({ length: before + n + after }, (_, i) => source(i - before, n));
    return indexSelect(x, axis, tensor(ids, null, { device: t.device }));
  }, t);
}
