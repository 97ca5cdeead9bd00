#include "cpu/attention_bf16_dot.h"

#include "cpu/attention_pass.h"

namespace fovea::cpu {

void attention_bf16_dot(const AttentionParams& p, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel) {
  forward<Words::Bf16Pair>(p, score, pool, cancel);
}

}  // namespace fovea::cpu
