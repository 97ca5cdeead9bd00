// Attention of few bf16 queries over long keys on the tile unit of Intel processors (AMX).
#pragma once

#include "cpu/attention_amx.h"
#include "cpu/attention_decode.h"

namespace fovea::cpu {

// Null when attention_decode_amx takes the call, else why not.
static inline const char* attention_decode_amx_refusal(const AttentionParams& p) {
  if (const char* reason = attention_amx_refusal(p)) return reason;
  if (const char* reason = attention_decode_refusal(p)) return reason;
  if (p.dim % 32 || p.dim_v % 32) return "head dims are no whole tiles of 32 elements";
  return nullptr;
}

// As attention_decode. The caller has asked attention_decode_amx_refusal.
void attention_decode_amx(const AttentionParams& params, ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
