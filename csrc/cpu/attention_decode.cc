// Attention of few queries over long keys. Every key is used for a handful of rows only (the queries of all heads of a GQA group), so the
// kernel runs at the speed of memory, and all it has to do is to keep up: K and V stream through in their own layout and dtype, once.
#include "cpu/attention_decode.h"

#include "cpu/attention_decode_engine.h"
#include "cpu/attention_decode_pass.h"

namespace fovea::cpu {
namespace {

template <class T, Words kWords, int kRows>
void decode_by(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  decode<T, kWords, Decoder<T, kWords, kRows>>(DecodeShape(p, kRows), pool, cancel);
}

template <class T, Words kWords>
void decode_rows(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const int64_t rows = p.heads_q / p.heads_kv * p.len_q;
  if (rows == 1) decode_by<T, kWords, 1>(p, pool, cancel);
  else if (rows == 2) decode_by<T, kWords, 2>(p, pool, cancel);
  else decode_by<T, kWords, 4>(p, pool, cancel);
}

}  // namespace

template <>
void attention_decode<kIsa>(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  if (p.dtype == DType::F32) decode_rows<float, Words::F32>(p, pool, cancel);
  else if (p.dtype == DType::F16) decode_rows<f16, Words::F32>(p, pool, cancel);
  else decode_rows<bf16, kHasBf16Dot ? Words::Bf16Pair : Words::F32>(p, pool, cancel);
}

}  // namespace fovea::cpu
