// Attention forward of bf16 by the dot instruction of AVX512-BF16.
#pragma once

#include "cpu/attention.h"

namespace fovea::cpu {

// Null when attention_bf16_dot takes the call, else why not.
static inline const char* attention_bf16_dot_refusal(const AttentionParams& p) {
  if (current_isa() != Isa::Avx512Bf16) return "the level in use is not avx512bf16";
  if (p.dtype != DType::BF16) return "the dot instruction multiplies bf16";
  return nullptr;
}

// As attention_forward, in the same tiles and order. The caller has asked attention_bf16_dot_refusal.
void attention_bf16_dot(const AttentionParams& params, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
