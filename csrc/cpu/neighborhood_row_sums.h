// Sums of rows of values or keys for the queries of a box (neighborhood_tile.h), dims in lanes, weights as scalars:
//
//   O += P x V rows      dQ += dS x K rows
//
// A few neighbouring queries are summed at a time over the keys that one of them sees, with all accumulators in registers.
#pragma once

#include "cpu/neighborhood_tile.h"

namespace fovea::cpu {
namespace {

// Most vectors of rows that R queries sum at once.
template <int R>
constexpr int kSumVectors = R == kFewQueries && kRegisters == 32 ? 6 : 3;

// Where sums of rows go, by lane: between chunks they are kept, the next chunk starts from them times `factor`, and the last one writes
// them, times `scale`, to rows `to`.
struct RowSums {
  float* kept;  // [lane][pitch]
  int64_t pitch;
  const float *factor, *scale;
  float* const* to;
};

// Adds weights[j][i] * rows[j] over the keys j of a group's runs, for its R queries and W vectors from d on.
template <int R, int W>
FOVEA_INLINE void sum_group(const Chunk& chunk, int group, const float* const* rows, int64_t d, const float* weights, int64_t lanes,
                            const RowSums& sums) {
  const int lane = group * R;
  float* kept = sums.kept + lane * sums.pitch + d;
  vf acc[R][W];
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int w = 0; w < W; w++) acc[i][w] = zero();
  if (!chunk.first) FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int w = 0; w < W; w++) acc[i][w] = load(kept + i * sums.pitch + w * kLanes) * sums.factor[lane + i];
  for (const Chunk::Run *run = chunk.run[group], *last = run + chunk.runs[group]; run < last; run++)
    for (int64_t j = run->begin; j < run->end; j++) {
      const float *row = rows[j] + d, *weight = weights + j * lanes + lane;
      vf part[W];
      FOVEA_UNROLL
      for (int w = 0; w < W; w++) part[w] = load_once(row + w * kLanes);
      FOVEA_UNROLL
      for (int i = 0; i < R; i++) {
        const vf x = broadcast(weight + i);
        FOVEA_UNROLL
        for (int w = 0; w < W; w++) acc[i][w] = fma(x, part[w], acc[i][w]);
      }
    }
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) {
    float* to = chunk.last ? sums.to[lane + i] + d : kept + i * sums.pitch;
    const float scale = chunk.last ? sums.scale[lane + i] : 1.f;
    FOVEA_UNROLL
    for (int w = 0; w < W; w++) store(to + w * kLanes, acc[i][w] * scale);
  }
}

template <int R, int W, class Meanwhile>
__attribute__((noinline)) void sum_groups(const Box& b, const Chunk& chunk, const float* const* rows, int64_t d, const float* weights,
                                          int64_t lanes, const RowSums& sums, Meanwhile&& meanwhile) {
  for (int g = 0; g < b.groups; g++)
    if (chunk.runs[g] || chunk.first || chunk.last) {
      sum_group<R, W>(chunk, g, rows, d, weights, lanes, sums);
      meanwhile();
    }
}

template <int R, class Meanwhile>
void sum_rows_of(const Box& b, const Chunk& chunk, const float* const* rows, const float* weights, int64_t lanes, const RowSums& sums,
                 Meanwhile&& meanwhile) {
  const int vectors = static_cast<int>(sums.pitch / kLanes);
  for (int first = 0, panels = (vectors + kSumVectors<R> - 1) / kSumVectors<R>; panels > 0; panels--) {
    const int n = (vectors - first + panels - 1) / panels;
    with_count<kSumVectors<R>>(n, [&]<int W>() { sum_groups<R, W>(b, chunk, rows, first * kLanes, weights, lanes, sums, meanwhile); });
    first += n;
  }
}

// Adds the sum of weights[j][lane] * rows[j] over the keys j that the lane's group sees; rows of whole vectors, `pitch` floats.
template <class Meanwhile>
void sum_rows(const Box& b, const Chunk& chunk, const float* const* rows, const float* weights, int64_t lanes, const RowSums& sums,
              Meanwhile&& meanwhile) {
  if (b.group == kFewQueries) return sum_rows_of<kFewQueries>(b, chunk, rows, weights, lanes, sums, meanwhile);
  if constexpr (kManyQueries != kFewQueries) sum_rows_of<kManyQueries>(b, chunk, rows, weights, lanes, sums, meanwhile);
}

}  // namespace
}  // namespace fovea::cpu
