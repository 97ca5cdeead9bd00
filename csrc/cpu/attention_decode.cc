// Attention of few queries over long keys. Every key is used for a handful of rows only (the queries of all heads of a GQA group), so the
// kernel runs at the speed of memory, and all it has to do is to keep up: K and V stream through in their own layout and dtype, once.
#include "cpu/attention_decode.h"

#include "cpu/attention_decode_engine.h"

namespace fovea::cpu {

template <>
void attention_decode<kIsa>(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  if (p.dtype == DType::F32) decode_rows<float, Words::F32>(p, pool, cancel);
  else if (p.dtype == DType::F16) decode_rows<f16, Words::F32>(p, pool, cancel);
  else decode_rows<bf16, Words::F32>(p, pool, cancel);
}

}  // namespace fovea::cpu
