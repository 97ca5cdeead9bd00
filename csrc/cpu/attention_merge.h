// Merging partial attention results by their log-sum-exp.
#pragma once

#include "core/attention_merge_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

template <Isa>
void attention_merge(const AttentionMergeParams& params, ThreadPool& pool);
template <Isa>
void attention_merge_backward(const AttentionMergeGrads& params, ThreadPool& pool);

}  // namespace fovea::cpu
