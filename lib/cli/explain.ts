import { explain } from '../attention/explain.ts';
import type { AttentionOptions } from '../attention/arguments.ts';
import { cast } from '../ops/copy.ts';
import { zeros } from '../ops/creation.ts';
import { expand } from '../ops/view.ts';
import type { DType } from '../tensor/dtype.ts';
import { scope } from '../tensor/scope.ts';
import { expectCounts } from './numbers.ts';
import { parseArgs, resolveMask } from './mask_show.ts';
import { report, type CommonOptions } from './output.ts';

export interface ExplainOptions extends CommonOptions {
  batch: number;
  heads: number;
  kvHeads?: number;
  q: number;
  kv?: number;
  dim: number;
  dtype: DType;
  causal?: boolean;
  window?: number;
  mask?: string;
  args: string;
}

/** `fovea explain`: what an attention call of these shapes would do. Runs no kernel. */
export async function explainCall(options: ExplainOptions): Promise<number> {
  const { batch, heads, kvHeads = heads, q, kv = q, dim, dtype } = options;
  expectCounts({ batch, heads, 'kv-heads': kvHeads, q, kv, dim });
  expectCounts({ window: options.window }, -1);
  const mask = options.mask === undefined ? undefined : await resolveMask(options.mask, parseArgs(options.args));
  const call: AttentionOptions = {
    ...(mask ? { mask } : {}),
    ...(options.causal ? { causal: 'bottom-right' as const } : {}),
    ...(options.window === undefined ? {} : { window: [options.window, -1] as const }),
  };
  const found = scope(() => {
    // One row stands for all: nothing is read.
    const row = cast(zeros([1, 1, 1, dim]), dtype);
    const rows = (h: number, length: number) => expand(row, [batch, h, length, dim]);
    return explain(rows(heads, q), rows(kvHeads, kv), rows(kvHeads, kv), call);
  });
  report(options, found, String);
  return 0;
}
