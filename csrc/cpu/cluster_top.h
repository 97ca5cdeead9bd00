// The tokens most similar to each centroid: routing of k-means attention.
#pragma once

#include <cstdint>

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

constexpr int64_t kSimilarityPitch = 16;  // rows of similarities are multiples of this many floats

// similarity[b, h, c, t] = (x[b, h, t] / max(|x[b, h, t]|, 1e-12)) . centroids[h, c] in f32; indices[b, h, c] = places of the `window`
// largest of row c, rising; of equals those with the lowest place. x has rows of neighbouring elements.
struct ClusterTopParams {
  DType dtype;  // of x: f32, bf16, f16
  int64_t batch, heads, length, clusters, dim;
  AttentionTensor x;
  const float* centroids;  // [heads, clusters, dim]
  int64_t window;          // 0 < window <= length
  float* similarity;       // workspace [batch * heads * clusters, pitch], pitch = length rounded up to kSimilarityPitch
  int32_t* indices;        // [batch, heads, clusters, window]
};

template <Isa>
void cluster_top(const ClusterTopParams&, ThreadPool&);

}  // namespace fovea::cpu
