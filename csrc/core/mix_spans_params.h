// What joining spans with their window takes, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// With i the place of pair (r, t) in `pairs`, w = gate[r, t] * sigmoid(lse[i] - near_lse[r]) (gate[r, t] without a window):
// result[r] = (1 - sum w) * near[r] + sum w * out[i]. All contiguous; log-sum-exps count as at least -1e30.
struct MixSpansParams {
  DType dtype;  // of out, near, result: f32, bf16, f16
  int64_t rows, spans, dim;
  const void* out;        // [rows * spans, dim], in the order of `pairs`
  const float* lse;       // the same order
  const int32_t* pairs;   // a permutation: row * spans + span of each
  const float* gate;      // [rows, spans]
  const void* near;       // [rows, dim]; null = no window
  const float* near_lse;  // [rows]
  int32_t* places;        // workspace [rows * spans]
  void* result;           // [rows, dim]
};

}  // namespace fovea
