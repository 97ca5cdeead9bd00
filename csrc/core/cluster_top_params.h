// What the routing of k-means attention takes, on every device.
#pragma once

#include <cstdint>

#include "core/attention_params.h"

namespace fovea {

// indices[b, h, c] = the `window` tokens t of largest (x[b, h, t] / max(|x[b, h, t]|, 1e-12)) . centroids[h, c], rising; of equals those
// with the lowest place. Sums are f32, one chain of fused multiply-adds in the order of dim, multiplied by 1 / max(..). x has rows of
// neighbouring elements.
struct ClusterTopParams {
  DType dtype;  // of x: f32, bf16, f16
  int64_t batch, heads, length, clusters, dim;
  AttentionTensor x;
  const float* centroids;  // [heads, clusters, dim]
  int64_t window;          // 0 < window <= length
  int32_t* indices;        // [batch, heads, clusters, window]
};

}  // namespace fovea
