// The tokens most similar to each centroid: routing of k-means attention.
#pragma once

#include "core/cluster_top_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::ClusterTopParams;

constexpr int64_t kClusterBlock = 768;                 // tokens compared with all clusters at once; a multiple of every register tile
constexpr int64_t kClusterPitch = kClusterBlock + 16;  // and what is kept of them for one cluster: vectors are stored whole

template <Isa>
void cluster_top(const ClusterTopParams&, ThreadPool&);

constexpr int64_t kTileSample = 512;  // tokens that cluster_top_amx takes its bounds from

// How many of the sample may lie above a bound: three standard deviations more than what is expected of `window` tokens.
static inline int64_t tile_sample_rank(const ClusterTopParams& p) {
  const int64_t expected = p.window * kTileSample / p.length + 1;
  return expected + static_cast<int64_t>(3 * __builtin_sqrt(static_cast<double>(expected))) + 1;
}

// Whether rows are long enough for a sample to help; cluster_top<Isa::Avx512> leaves them to the tile unit, where there is one.
static inline bool cluster_top_amx_takes(const ClusterTopParams& p) {
  return p.length >= 4 * kTileSample && tile_sample_rank(p) < kTileSample;
}

void cluster_top_amx(const ClusterTopParams&, ThreadPool&);

}  // namespace fovea::cpu
