#include "cpu/attention_amx.h"

#include "cpu/attention_pass.h"

namespace fovea::cpu {

#if FOVEA_ISA == 2
void attention_amx(const AttentionParams& p, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel) {
  forward<bf16, Words::Bf16Tile>(p, score, pool, cancel);
}
#endif

}  // namespace fovea::cpu
