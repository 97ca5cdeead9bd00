#include "cpu/attention.h"

#include "cpu/attention_pass.h"

namespace fovea::cpu {

template <>
void attention_forward<kIsa>(const AttentionParams& p, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel) {
  if (p.dtype == DType::F32) forward<float, Words::F32>(p, score, pool, cancel);
  else if (p.dtype == DType::F16) forward<f16, Words::F32>(p, score, pool, cancel);
  else forward<bf16, kHasBf16Dot ? Words::Bf16Pair : Words::F32>(p, score, pool, cancel);
}

}  // namespace fovea::cpu
