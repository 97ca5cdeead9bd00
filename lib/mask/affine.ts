/**
 * Relations between values that intervals can't hold: where `kv <= q` is known, `q - kv` isn't negative, whatever the two are.
 *
 * Sums and differences are written as a constant plus a linear part over other values; what a comparison says about a linear part is kept
 * and bounds every other value with the same part, `q - kv + 3` for instance.
 */
import { OP } from './program.ts';
import type { Narrowing } from './narrow.ts';

interface Form {
  readonly constant: number;
  /** Coefficient of each value, none of them 0. */
  readonly terms: ReadonlyMap<number, number>;
}

const MAX_TERMS = 8;

export class Relations {
  private readonly code: Int32Array;
  private readonly narrowing: Narrowing;
  private readonly forms = new Map<number, Form>();
  private readonly known = new Map<string, { lo: number; hi: number }>();

  constructor(code: Int32Array, narrowing: Narrowing) {
    this.code = code;
    this.narrowing = narrowing;
  }

  /** Learns from every comparison whose outcome is settled, and bounds every sum and difference by what is known. */
  apply(): void {
    const { code } = this;
    const { m } = this.narrowing;
    this.forms.clear();
    for (let i = 0; i < code.length / 4; ++i) {
      const [op, a, b] = code.subarray(4 * i, 4 * i + 3);
      const strict = op === OP.LtI ? 1 : 0;
      if (op === OP.LtI || op === OP.LeI) {
        if (m.lo[i] === 1) this.learn(a, b, strict, Infinity);
        else if (m.hi[i] === 0) this.learn(b, a, 1 - strict, Infinity);
      } else if ((op === OP.EqI && m.lo[i] === 1) || (op === OP.NeI && m.hi[i] === 0)) this.learn(a, b, 0, 0);
    }
    for (let i = 0; i < code.length / 4; ++i) {
      if (code[4 * i] === OP.AddI || code[4 * i] === OP.SubI) this.bound(i);
    }
  }

  /** lo <= y - x <= hi. */
  private learn(x: number, y: number, lo: number, hi: number): void {
    const form = combine(this.form(y), this.form(x), -1);
    if (form.terms.size < 2 || form.terms.size > MAX_TERMS) return;
    const [key, sign] = canonical(form);
    const ends = [sign * (lo - form.constant), sign * (hi - form.constant)];
    const entry = this.known.get(key) ?? { lo: -Infinity, hi: Infinity };
    entry.lo = Math.max(entry.lo, Math.min(...ends));
    entry.hi = Math.min(entry.hi, Math.max(...ends));
    this.known.set(key, entry);
  }

  private bound(value: number): void {
    const form = this.form(value);
    if (form.terms.size < 2 || form.terms.size > MAX_TERMS) return;
    const [key, sign] = canonical(form);
    const entry = this.known.get(key);
    if (!entry) return;
    const ends = [sign * entry.lo + form.constant, sign * entry.hi + form.constant];
    this.narrowing.within(value, Math.min(...ends), Math.max(...ends));
  }

  private form(value: number): Form {
    let form = this.forms.get(value);
    if (!form) this.forms.set(value, (form = this.build(value)));
    return form;
  }

  private build(value: number): Form {
    const { m } = this.narrowing;
    if (m.lo[value] === m.hi[value]) return { constant: m.lo[value], terms: new Map() };
    const [op, a, b] = this.code.subarray(4 * value, 4 * value + 3);
    const leaf: Form = { constant: 0, terms: new Map([[value, 1]]) };
    if (m.wrapped[value]) return leaf;
    if (op === OP.AddI) return combine(this.form(a), this.form(b), 1);
    if (op === OP.SubI) return combine(this.form(a), this.form(b), -1);
    if (op === OP.NegI) return combine({ constant: 0, terms: new Map() }, this.form(a), -1);
    if (op === OP.MulI) {
      const [x, y] = [this.form(a), this.form(b)];
      const none: Form = { constant: 0, terms: new Map() };
      if (x.terms.size === 0) return combine(none, y, x.constant);
      if (y.terms.size === 0) return combine(none, x, y.constant);
    }
    return leaf;
  }
}

function combine(x: Form, y: Form, factor: number): Form {
  const terms = new Map(x.terms);
  for (const [value, coefficient] of y.terms) {
    const sum = (terms.get(value) ?? 0) + factor * coefficient;
    if (sum === 0) terms.delete(value);
    else terms.set(value, sum);
  }
  return { constant: x.constant + factor * y.constant, terms };
}

/** A name for the linear part up to sign, and the sign. */
function canonical({ terms }: Form): [string, 1 | -1] {
  const sorted = [...terms].sort(([x], [y]) => x - y);
  const sign = sorted[0][1] < 0 ? -1 : 1;
  return [sorted.map(([value, coefficient]) => `${value}:${sign * coefficient}`).join(), sign];
}
