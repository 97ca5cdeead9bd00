// Merging partial attention results by their log-sum-exp.
#pragma once

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

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

template <Isa>
void attention_merge(const AttentionMergeParams& params, ThreadPool& pool);

}  // namespace fovea::cpu
