// Attention of few queries over long keys (decoding with a KV cache).
#pragma once

#include <atomic>

#include "core/attention_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// Most rows (queries times query heads of one key head) the kernel takes.
constexpr int64_t kDecodeRows = 8;

// Null when attention_decode takes the call, else why not.
static inline const char* attention_decode_refusal(const AttentionParams& p) {
  if (p.len_q * (p.heads_q / p.heads_kv) > kDecodeRows) return "more than 8 rows (queries times heads of a group) share a key head";
  if (p.cu_q || p.q_rows || p.key_ranges) return "packed sequences, query row lists and key ranges have no few-row form";
  if (p.block_mask || p.mask.data || p.bias.data || p.score) return "masks, bias and score programs need scores in query lanes";
  if (p.q.sd != 1 || p.k.sd != 1 || p.v.sd != 1) return "elements of a row are not neighbours";
  return nullptr;
}

// Writes out and lse. The caller has asked attention_decode_refusal.
template <Isa>
void attention_decode(const AttentionParams& params, ThreadPool& pool, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
