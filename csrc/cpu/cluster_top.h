// The tokens most similar to each centroid: routing of k-means attention.
#pragma once

#include <cstdint>

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

constexpr int64_t kClusterBlock = 768;                 // tokens compared with all clusters at once; a multiple of every register tile
constexpr int64_t kClusterPitch = kClusterBlock + 16;  // and what is kept of them for one cluster: vectors are stored whole

// indices[b, h, c] = the `window` tokens t of largest (x[b, h, t] / max(|x[b, h, t]|, 1e-12)) . centroids[h, c], rising; of equals those
// with the lowest place. Sums are f32. x has rows of neighbouring elements.
struct ClusterTopParams {
  DType dtype;  // of x: f32, bf16, f16
  int64_t batch, heads, length, clusters, dim;
  AttentionTensor x;
  const float* centroids;  // [heads, clusters, dim]
  int64_t window;          // 0 < window <= length
  uint32_t* keys;          // workspaces: [batch * heads, blocks, clusters, kClusterPitch], blocks = length over kClusterBlock, rounded up
  int32_t* places;         // the same
  int32_t* counts;         // [batch * heads, blocks, clusters]
  uint32_t* bounds;        // [batch * heads, clusters]
  int32_t* indices;        // [batch, heads, clusters, window]
};

template <Isa>
void cluster_top(const ClusterTopParams&, ThreadPool&);

}  // namespace fovea::cpu
