/** Attention and its gradients in plain double-precision loops. */

export interface Sizes {
  readonly b: number;
  readonly hq: number;
  readonly hkv: number;
  readonly lq: number;
  readonly lk: number;
  readonly d: number;
  readonly dv: number;
}

export interface Problem extends Sizes {
  readonly q: ArrayLike<number>;
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
  readonly scale?: number;
  readonly softcap?: number;
  readonly visible?: (b: number, h: number, i: number, j: number) => boolean;
  /** The logit that the softmax sees, from the scaled and capped product. */
  readonly logit?: (s: number, b: number, h: number, i: number, j: number) => number;
  /** Its derivative with respect to s; default 1. */
  readonly slope?: (s: number, b: number, h: number, i: number, j: number) => number;
}

export interface Outputs {
  readonly out: Float64Array;
  readonly lse: Float64Array;
}

export interface Gradients {
  readonly dq: Float64Array;
  readonly dk: Float64Array;
  readonly dv: Float64Array;
  /** Gradient of each logit [b, hq, lq, lk]. */
  readonly dt: Float64Array;
}

interface Row {
  /** Capped products and weights by key; weight 0 where masked. */
  readonly s: Float64Array;
  readonly weight: Float64Array;
  readonly lse: number;
}

const offsets = (p: Problem, b: number, h: number, i: number) => {
  const hk = Math.floor(h / (p.hq / p.hkv));
  return {
    q: ((b * p.hq + h) * p.lq + i) * p.d,
    out: ((b * p.hq + h) * p.lq + i) * p.dv,
    row: (b * p.hq + h) * p.lq + i,
    k: (j: number) => ((b * p.hkv + hk) * p.lk + j) * p.d,
    v: (j: number) => ((b * p.hkv + hk) * p.lk + j) * p.dv,
  };
};

function weights(p: Problem, b: number, h: number, i: number): Row {
  const at = offsets(p, b, h, i);
  const { scale = 1 / Math.sqrt(p.d), softcap = 0 } = p;
  const s = new Float64Array(p.lk);
  const t = new Float64Array(p.lk).fill(-Infinity);
  for (let j = 0; j < p.lk; j++) {
    if (p.visible && !p.visible(b, h, i, j)) continue;
    let dot = 0;
    for (let d = 0; d < p.d; d++) dot += p.q[at.q + d] * p.k[at.k(j) + d];
    s[j] = softcap > 0 ? softcap * Math.tanh((dot * scale) / softcap) : dot * scale;
    t[j] = p.logit ? p.logit(s[j], b, h, i, j) : s[j];
  }
  const high = t.reduce((a, x) => Math.max(a, x), -Infinity);
  if (high === -Infinity) return { s, weight: new Float64Array(p.lk), lse: -Infinity };
  const weight = t.map((x) => Math.exp(x - high));
  const sum = weight.reduce((a, x) => a + x, 0);
  return { s, weight: weight.map((x) => x / sum), lse: high + Math.log(sum) };
}

function forEachRow(p: Problem, visit: (b: number, h: number, i: number) => void): void {
  for (let b = 0; b < p.b; b++) for (let h = 0; h < p.hq; h++) for (let i = 0; i < p.lq; i++) visit(b, h, i);
}

export function referenceAttention(p: Problem): Outputs {
  const out = new Float64Array(p.b * p.hq * p.lq * p.dv);
  const lse = new Float64Array(p.b * p.hq * p.lq);
  forEachRow(p, (b, h, i) => {
    const at = offsets(p, b, h, i);
    const row = weights(p, b, h, i);
    lse[at.row] = row.lse;
    for (let j = 0; j < p.lk; j++)
      if (row.weight[j] !== 0) for (let d = 0; d < p.dv; d++) out[at.out + d] += row.weight[j] * p.v[at.v(j) + d];
  });
  return { out, lse };
}

/** Gradients of sum(out * dout) + sum(lse * dlse). */
export function referenceGradients(p: Problem, dout: ArrayLike<number>, dlse?: ArrayLike<number>): Gradients {
  const dq = new Float64Array(p.b * p.hq * p.lq * p.d);
  const dk = new Float64Array(p.b * p.hkv * p.lk * p.d);
  const dv = new Float64Array(p.b * p.hkv * p.lk * p.dv);
  const dt = new Float64Array(p.b * p.hq * p.lq * p.lk);
  const { scale = 1 / Math.sqrt(p.d), softcap = 0 } = p;
  forEachRow(p, (b, h, i) => {
    const at = offsets(p, b, h, i);
    const { s, weight, lse } = weights(p, b, h, i);
    if (lse === -Infinity) return;
    const dp = new Float64Array(p.lk);
    let delta = dlse ? -dlse[at.row] : 0;
    for (let j = 0; j < p.lk; j++) {
      for (let d = 0; d < p.dv; d++) dp[j] += dout[at.out + d] * p.v[at.v(j) + d];
      delta += weight[j] * dp[j];
    }
    for (let j = 0; j < p.lk; j++) {
      if (weight[j] === 0) continue;
      for (let d = 0; d < p.dv; d++) dv[at.v(j) + d] += weight[j] * dout[at.out + d];
      let ds = weight[j] * (dp[j] - delta);
      dt[at.row * p.lk + j] = ds;
      if (p.slope) ds *= p.slope(s[j], b, h, i, j);
      if (softcap > 0) ds *= 1 - (s[j] / softcap) ** 2;
      for (let d = 0; d < p.d; d++) {
        dq[at.q + d] += ds * scale * p.k[at.k(j) + d];
        dk[at.k(j) + d] += ds * scale * p.q[at.q + d];
      }
    }
  });
  return { dq, dk, dv, dt };
}
