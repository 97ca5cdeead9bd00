// Attention forward on the CPU. See core/attention_params.h for what is computed and attention.cc for how.
#pragma once

#include <atomic>

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// Writes out, and lse when asked. Everything in AttentionParams is supported. Throws ERR_ABORTED once *cancel becomes true.
template <Isa>
void attention_forward(const AttentionParams& params, ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
