#include "cpu/attention_amx.h"

#include "cpu/attention_pass.h"

namespace fovea::cpu {

void attention_amx(const AttentionParams& p, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel) {
  forward<Words::Bf16Tile>(p, score, pool, cancel);
}

}  // namespace fovea::cpu
