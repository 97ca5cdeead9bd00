// Attention forward of bf16 on the tile unit of Intel processors (AMX).
#pragma once

#include "cpu/attention.h"

namespace fovea::cpu {

// Null when attention_amx takes the call, else why not.
static inline const char* attention_amx_refusal(const AttentionParams& p) {
  if (current_isa() != Isa::Amx) return "the processor has no AMX-BF16, or FOVEA_CPU_ISA is below it";
  if (p.dtype != DType::BF16) return "tiles multiply bf16";
  return nullptr;
}

// As attention_forward, in the same tiles and order. The caller has asked attention_amx_refusal.
void attention_amx(const AttentionParams& params, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
