// Attention of few bf16 queries over long keys by the dot instruction of AVX512-BF16.
#pragma once

#include "cpu/attention_bf16_dot.h"
#include "cpu/attention_decode.h"

namespace fovea::cpu {

// Null when attention_decode_bf16_dot takes the call, else why not.
static inline const char* attention_decode_bf16_dot_refusal(const AttentionParams& p) {
  if (const char* reason = attention_bf16_dot_refusal(p)) return reason;
  return attention_decode_refusal(p);
}

// As attention_decode. The caller has asked attention_decode_bf16_dot_refusal.
void attention_decode_bf16_dot(const AttentionParams& params, ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
