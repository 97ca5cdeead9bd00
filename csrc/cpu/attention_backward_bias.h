// The gradient of a bias that several chunks share: broadcast over batch, heads or queries.
//
// P and dP are computed once more, two products a block, with one owner for every element: a work item is (bias batch entry, bias head,
// query tile or key block), and visits all sequences, heads and tiles that read its elements in ascending order. So the sum has one order
// and needs no memory beyond the gradient itself. Bias over keys alone is owned by key block, everything else by query tile.
#pragma once

#include "cpu/attention_backward_block.h"

namespace fovea::cpu {
namespace {

inline void bias_gradient(const AttentionParams& p, const AttentionGrads& g, const Programs& programs, ThreadPool& pool,
                          const std::atomic<bool>* cancel) {
  const int64_t sequences = p.cu_q ? p.sequences : p.batch;
  int64_t tiles = 0, blocks = 0;
  for (int64_t s = 0; s < sequences; s++) {
    AttentionSequence seq = attention_sequence(p, s);
    int64_t t = (seq.q_len + kTileQ - 1) / kTileQ, b = (seq.kv_len + kBlockKv - 1) / kBlockKv;
    if (t > tiles) tiles = t;
    if (b > blocks) blocks = b;
  }
  const int64_t sharing_s = g.dbias.sb && !p.cu_q ? 1 : sequences, sharing_h = g.dbias.sh ? 1 : p.heads_q;
  const int64_t batches = sequences / sharing_s, heads = p.heads_q / sharing_h;
  const bool by_tile = g.dbias.sq != 0, by_block = !by_tile && g.dbias.skv != 0;
  const int64_t owners = by_tile ? tiles : by_block ? blocks : 1;
  pool.run(
      batches * heads * owners,
      [&](int64_t item, int thread) {
        const int64_t owner = item % owners, head0 = item / owners % heads, s0 = item / owners / heads;
        Arena arena(pool.scratch(thread, work_bytes(p, programs)));
        with_work(p, g, programs, arena, [&](BlockWork& work) {
          for (int64_t i = 0; i < sharing_s * sharing_h; i++) {
            AttentionSequence seq = attention_sequence(p, s0 + i / sharing_h);
            work.begin_head(seq, head0 + i % sharing_h, nullptr, nullptr, nullptr);
            const int64_t last = (seq.q_len + kTileQ - 1) / kTileQ;
            for (int64_t t = by_tile ? owner : 0; t < (by_tile ? (owner < last ? owner + 1 : 0) : last); t++) {
              if (cancel && cancel->load(std::memory_order_relaxed)) return;
              StripTile& tile = work.start_tile(0, t * kTileQ);
              if (tile.empty) continue;
              int64_t from = by_block ? owner * kBlockKv : tile.visible.lo() / kBlockKv * kBlockKv;
              int64_t to = by_block ? from + 1 : tile.visible.hi();
              for (int64_t k0 = from; k0 < to; k0 += kBlockKv) work.run_bias_block(tile, k0);
            }
          }
        });
      },
      cancel);
}

}  // namespace
}  // namespace fovea::cpu
