#include "cpu/attention_decode_bf16_dot.h"

#include "cpu/attention_decode_engine.h"

namespace fovea::cpu {

void attention_decode_bf16_dot(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  decode_rows<bf16, Words::Bf16Pair>(p, pool, cancel);
}

}  // namespace fovea::cpu
