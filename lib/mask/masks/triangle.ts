import { mask, type Mask } from '../mask.ts';
import { expectWhole } from '../whole.ts';

/**
 * Sink and window as in `streaming`, but the last `last` queries see all keys before them: the triangle of TriangleMix prefill.
 *
 * @param sink keys at the start that stay visible
 * @param local keys of the window, the query's own counted
 * @param last queries at the end that stay dense
 * @param length number of queries
 *
 * Source: He et al., "TriangleMix", 2025.
 */
export function triangle(sink: number, local: number, last: number, length: number): Mask {
  expectWhole('triangle', { sink, local, last, length });
  return mask(({ q, kv }, { sink, local, dense }) => kv <= q && (kv < sink || q - kv < local || q >= dense), {
    sink,
    local,
    dense: length - last,
  });
}
