// Attention forward on the CPU. See core/attention_params.h for what is computed and attention.cc for how.
#pragma once

#include <atomic>

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/program_plan.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// Whether attention_forward splits keys into ranges merged by lse: few queries of a head and many keys.
constexpr int64_t kSplitKeys = 1024, kSplitQueries = 16;
static inline bool attention_splits_keys(const AttentionParams& p) {
  return !p.cu_q && !p.block_mask && !p.key_ranges && p.len_q <= kSplitQueries && p.len_kv > kSplitKeys;
}

// Writes out, and lse when asked. Everything in AttentionParams is supported; `score` is the plan of params.score, or null.
// Throws ERR_ABORTED once *cancel becomes true.
template <Isa>
void attention_forward(const AttentionParams& params, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
