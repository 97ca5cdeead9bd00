// Windows, dilation groups and query tiles of neighborhood attention.
//
// A call is a set of independent lattices, one per combination of dilation groups. Queries of a lattice are cut into boxes of at most
// kVectors * kLanes tokens; a box visits the union of its windows, and every vector of its queries the keys that one of them sees. The
// shifted windows at the borders overlap more than those inside, so the choice of boxes counts real unions.
#pragma once

#include "core/neighborhood_params.h"
#include "cpu/attention_math.h"

namespace fovea::cpu {
namespace {

struct Range {
  int64_t begin, end;
};

FOVEA_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
FOVEA_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
FOVEA_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
FOVEA_INLINE int64_t whole(int64_t n, int64_t of) { return divide_up(n, of) * of; }

FOVEA_INLINE int64_t group_length(const NeighborhoodAxis& a, int64_t group) { return divide_up(a.length - group, a.dilation); }

// Keys that query i sees in a group of `length` tokens.
inline Range window_of(const NeighborhoodAxis& a, int64_t length, int64_t i) {
  const int64_t first = a.stride == 1 ? i : i / a.stride * a.stride;
  if (a.causal) return {most(least(first + a.stride - 1, length - 1) - a.kernel + 1, 0), i + 1};
  const int64_t leader = least(first + a.stride / 2, length - 1);
  const int64_t start = least(most(leader - a.kernel / 2, 0), length - a.kernel);
  return {start, start + a.kernel};
}

// Union of the windows of queries [first, first + count); windows only move forward along an axis.
inline Range union_of(const NeighborhoodAxis& a, int64_t length, int64_t first, int64_t count) {
  return {window_of(a, length, first).begin, window_of(a, length, least(first + count, length) - 1).end};
}

// One combination of dilation groups.
struct Lattice {
  int64_t group[3], length[3];

  Lattice(const NeighborhoodParams& p, int64_t index) {
    for (int a = 2; a >= 0; a--) {
      group[a] = index % p.axis[a].dilation;
      index /= p.axis[a].dilation;
      length[a] = group_length(p.axis[a], group[a]);
    }
  }
  static int64_t count(const NeighborhoodParams& p) { return p.axis[0].dilation * p.axis[1].dilation * p.axis[2].dilation; }
  int64_t token(const NeighborhoodParams& p, int a, int64_t i) const { return i * p.axis[a].dilation + group[a]; }
};

// Element offset of coordinate (i0, i1, i2) of a lattice, batch and head aside.
FOVEA_INLINE int64_t offset_of(const NeighborhoodParams& p, const Lattice& l, const NeighborhoodTensor& t, int64_t i0, int64_t i1,
                               int64_t i2) {
  return l.token(p, 0, i0) * t.sp[0] + l.token(p, 1, i1) * t.sp[1] + l.token(p, 2, i2) * t.sp[2];
}

struct TileShape {
  int64_t tile[3], grid[3];  // queries of a box, boxes of the longest group, per axis
  int vectors;
  int64_t count() const { return grid[0] * grid[1] * grid[2]; }
};

// Mean number of keys that `count` neighbouring queries of an axis see together, over the first kSample queries.
inline double mean_union(const NeighborhoodAxis& a, int64_t count) {
  constexpr int64_t kSample = 512;
  const int64_t n = group_length(a, 0);
  int64_t sum = 0, unions = 0;
  for (int64_t i = 0; i < least(n, kSample); i += count, unions++) {
    Range r = union_of(a, n, i, count);
    sum += r.end - r.begin;
  }
  return static_cast<double>(sum) / static_cast<double>(unions);
}

// The shape that makes the work smallest: a key costs a part by itself and a part for every vector that sees it.
inline TileShape choose_tile(const NeighborhoodParams& p) {
  constexpr int64_t kMost = int64_t{kVectors} * kLanes;
  constexpr double kKey = 0.2, kPair = 1.3, kBox = 12;  // relative times; what a box costs beside its keys, in keys
  int64_t n[3];
  double keys[3][kMost + 1];
  for (int a = 0; a < 3; a++) {
    n[a] = group_length(p.axis[a], 0);
    for (int64_t t = 1; t <= least(n[a], kMost); t++) keys[a][t] = mean_union(p.axis[a], t);
  }
  TileShape best{};
  double least_cost = 0;
  for (int64_t t0 = 1; t0 <= least(n[0], kMost); t0++)
    for (int64_t t1 = 1; t1 <= least(n[1], kMost / t0); t1++)
      for (int64_t t2 = 1; t2 <= least(n[2], kMost / (t0 * t1)); t2++) {
        const int vectors = static_cast<int>(divide_up(t0 * t1 * t2, kLanes));
        const int64_t grid[3] = {divide_up(n[0], t0), divide_up(n[1], t1), divide_up(n[2], t2)};
        double pairs = 0;  // of a key and a vector that sees it
        for (int64_t first = 0; first < t0 * t1 * t2; first += kLanes) {
          const int64_t last = least(first + kLanes, t0 * t1 * t2) - 1, rows = last / t2 - first / t2,
                        planes = last / (t1 * t2) - first / (t1 * t2);
          pairs += keys[0][planes + 1] * keys[1][planes ? t1 : rows + 1] * keys[2][rows ? t2 : last - first + 1];
        }
        const double more = kBox + static_cast<double>(p.extra);
        const double cost = static_cast<double>(grid[0] * grid[1] * grid[2]) *
                            (kKey * (keys[0][t0] * keys[1][t1] * keys[2][t2] + more) + kPair * (pairs + more * vectors));
        if (best.vectors && cost >= least_cost) continue;
        least_cost = cost;
        best = {{t0, t1, t2}, {grid[0], grid[1], grid[2]}, vectors};
      }
  return best;
}

}  // namespace
}  // namespace fovea::cpu
