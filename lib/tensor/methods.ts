/**
 * The fluent form of the ops: `a.add(b).mul(2).sum()` is `sum(mul(add(a, b), 2))`. Each method is the function of the same name with the
 * tensor as its first argument; its type and its documentation are those of the function.
 */
import * as binary from '../ops/binary.ts';
import * as compare from '../ops/compare.ts';
import * as copy from '../ops/copy.ts';
import * as reduce from '../ops/reduce.ts';
import * as scan from '../ops/scan.ts';
import * as softmaxes from '../ops/softmax.ts';
import * as unary from '../ops/unary.ts';
import * as view from '../ops/view.ts';
import * as where from '../ops/where.ts';
import { Tensor } from './tensor.ts';

/** Functions of a tensor without their first argument. A mapped type: editors show the functions' own comments. */
type Methods<F> = {
  [K in keyof F]: F[K] extends (t: never, ...rest: infer R) => infer Out ? (...rest: R) => Out : never;
};

declare module './tensor.ts' {
  interface Tensor
    extends
      Methods<Omit<typeof binary, 'forward'>>,
      Methods<typeof compare>,
      Methods<typeof unary>,
      Methods<typeof reduce>,
      Methods<Omit<typeof view, 'sumTo'>>,
      Methods<typeof copy>,
      Methods<typeof scan>,
      Methods<typeof softmaxes>,
      Methods<typeof where> {}
}

type Functions = Readonly<Record<string, unknown>>;

/** Makes `name(t, ...rest)` callable as `t.name(...rest)`. */
export function defineMethods(functions: Functions): void {
  for (const [name, fn] of Object.entries(functions)) {
    const call = fn as (t: Tensor, ...rest: unknown[]) => unknown;
    Object.defineProperty(Tensor.prototype, name, {
      value(this: Tensor, ...rest: unknown[]) {
        return call(this, ...rest);
      },
      writable: true,
      configurable: true,
    });
  }
}

const { forward: _forward, ...arithmetic } = binary;
const { sumTo: _sumTo, ...views } = view;
defineMethods({ ...arithmetic, ...compare, ...unary, ...reduce, ...views, ...copy, ...scan, ...softmaxes, ...where });
