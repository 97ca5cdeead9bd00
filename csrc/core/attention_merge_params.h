// What merging of partial attention results takes, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// out[r] = sum_i exp(lse_i[r] - lse[r]) out_i[r],  lse[r] = log sum_i exp(lse_i[r]); rows are contiguous, [rows, dim] and [rows].
// Where every part is -inf the result is out 0, lse -inf.
struct AttentionMergeParams {
  DType dtype;  // of the outs
  int64_t count, rows, dim;
  const void* const* outs;
  const float* const* lses;
  void* out;
  float* lse;
};

// Gradients: with w_i = exp(lse_i - lse), dout_i = w_i dout and dlse_i = w_i (dlse + dout . (out_i - out)).
struct AttentionMergeGrads {
  AttentionMergeParams forward;  // out and lse as they came out
  const void* dout;              // dtype of the outs, or null = 0
  const float* dlse;             // or null = 0
  void* const* douts;
  float* const* dlses;
};

}  // namespace fovea
