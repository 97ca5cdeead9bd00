/**
 * Bounds of an i32 value that hold for every point, found while the graph is built. They need only be good enough to see that something is
 * not negative; sharp bounds for one tile are the interval analysis's work.
 *
 * Of a captured number only the sign is used (0 and 1 may be booleans and say less), so that `Math.floor(q / size)` is one division:
 * programs of two positive sizes are the same code, and a negative size gives other code with another key.
 */
import { OP } from './program.ts';
import type { Builder } from './ir.ts';

type Bounds = readonly [number, number];

const INT_MIN = -2147483648;
const INT_MAX = 2147483647;
const FULL: Bounds = [INT_MIN, INT_MAX];
const COORDINATE: Bounds = [0, 2 ** 30 - 1];

function checked(lo: number, hi: number): Bounds {
  return lo >= INT_MIN && hi <= INT_MAX ? [lo, hi] : FULL;
}

export function staticRange(graph: Builder, op: number, a: number, b: number): Bounds {
  const { lo, hi } = graph;
  switch (op) {
    case OP.Batch:
    case OP.Head:
    case OP.Query:
    case OP.Key:
      return COORDINATE;
    case OP.ConstI:
      return [a, a];
    case OP.UniformI: {
      const { value } = graph.uniforms[a];
      return value > 1 ? [1, INT_MAX] : value >= 0 ? [0, INT_MAX] : FULL;
    }
    case OP.LoadI:
      return graph.tables[a].dtype === 'u8' ? [0, 255] : FULL;
    case OP.BoolToInt:
      return [0, 1];
    case OP.AddI:
      return checked(lo[a] + lo[b], hi[a] + hi[b]);
    case OP.SubI:
      return checked(lo[a] - hi[b], hi[a] - lo[b]);
    case OP.MulI: {
      const corners = [lo[a] * lo[b], lo[a] * hi[b], hi[a] * lo[b], hi[a] * hi[b]];
      return checked(Math.min(...corners), Math.max(...corners));
    }
    case OP.NegI:
      return checked(-hi[a], -lo[a]);
    case OP.AbsI:
      return lo[a] >= 0 ? [lo[a], hi[a]] : checked(0, Math.max(-lo[a], hi[a]));
    case OP.MinI:
      return [Math.min(lo[a], lo[b]), Math.min(hi[a], hi[b])];
    case OP.MaxI:
      return [Math.max(lo[a], lo[b]), Math.max(hi[a], hi[b])];
    case OP.DivI:
      return lo[a] >= 0 && lo[b] >= 0 ? [0, hi[a]] : FULL;
    case OP.RemI:
      return lo[a] >= 0 ? [0, lo[b] > 0 ? Math.min(hi[a], hi[b] - 1) : hi[a]] : FULL;
    case OP.AndI:
      if (lo[a] >= 0 && lo[b] >= 0) return [0, Math.min(hi[a], hi[b])];
      return lo[a] >= 0 ? [0, hi[a]] : lo[b] >= 0 ? [0, hi[b]] : FULL;
    case OP.OrI:
    case OP.XorI:
      return lo[a] >= 0 && lo[b] >= 0 ? [0, INT_MAX] : FULL;
    case OP.ShrI:
      return lo[a] >= 0 ? [0, hi[a]] : [Math.min(lo[a], 0), Math.max(hi[a], 0)];
    case OP.ShrU:
      return lo[a] >= 0 ? [0, hi[a]] : FULL;
    case OP.SelectI:
      return [Math.min(lo[a], lo[b]), Math.max(hi[a], hi[b])];
    default:
      return FULL;
  }
}
