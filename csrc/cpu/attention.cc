#include "cpu/attention.h"

#include "cpu/attention_pass.h"

namespace fovea::cpu {

template <>
void attention_forward<kIsa>(const AttentionParams& p, const ProgramPlan* score, ThreadPool& pool, const std::atomic<bool>* cancel) {
  forward<Words::F32>(p, score, pool, cancel);
}

}  // namespace fovea::cpu
