import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectFunction, expectTensors } from './expect.ts';
import type { Tensor } from './tensor.ts';

/** Tensors made in the innermost running scope, or null outside any. */
let current: Tensor[] | null = null;

/** Gives a new tensor to the running scope, if there is one. */
export function track(t: Tensor): boolean {
  current?.push(t);
  return current !== null;
}

/** Takes `t` out of the running scopes: it lives until disposed or collected. Returns `t`. */
export function keep<T extends Tensor>(t: T): T {
  expectTensors('keep', { t });
  t.kept = true;
  t.releaseWhenUnreachable();
  return t;
}

function collect(value: unknown, into: Set<Tensor>, isTensor: (v: unknown) => v is Tensor): void {
  if (isTensor(value)) into.add(value);
  else if (Array.isArray(value)) for (const item of value) collect(item, into, isTensor);
  else if (value && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) collect(item, into, isTensor);
  }
}

/**
 * Runs `fn` and disposes every tensor made inside it, except those it returns (alone, in arrays or in plain objects), what their
 * gradients will need, and those given to `keep`. Scopes nest; survivors belong to the enclosing scope.
 *
 * `fn` must be synchronous (enqueue inside, await outside): a returned promise throws ERR_ARGUMENT.
 */
export function scope<R>(fn: () => R): R {
  expectFunction('scope', 'fn', fn);
  native().beginScope();
  const outer = current;
  const mine: Tensor[] = [];
  current = mine;
  const survivors = new Set<Tensor>();
  try {
    const result = fn();
    if (result instanceof Promise) {
      throw new FoveaError(
        'ERR_ARGUMENT',
        'scope: fn returned a promise; make tensors inside the scope, await outside it',
      );
    }
    const isTensor = (v: unknown): v is Tensor =>
      typeof v === 'object' && v !== null && 'handle' in v && 'dispose' in v;
    collect(result, survivors, isTensor);
    // A set is visited in insertion order, additions included: this walks the graph.
    for (const t of survivors) if (t.node) for (const needed of t.node.holds()) survivors.add(needed);
    return result;
  } finally {
    current = outer;
    try {
      for (const t of mine) {
        if (t.kept) continue;
        if (!survivors.has(t)) t.dispose();
        else if (outer) outer.push(t);
        else t.releaseWhenUnreachable();
      }
    } finally {
      native().endScope();
    }
  }
}
