#include "cpu/attention_decode_amx.h"

#include "cpu/attention_decode_amx_engine.h"
#include "cpu/attention_decode_pass.h"

namespace fovea::cpu {

void attention_decode_amx(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  decode<bf16, Words::F32, TileDecoder>(DecodeShape(p, TileDecoder::kRows), pool, cancel);
}

}  // namespace fovea::cpu
