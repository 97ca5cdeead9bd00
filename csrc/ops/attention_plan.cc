#include "ops/attention_plan.h"

#include <algorithm>

namespace fovea {
namespace {

struct Range {
  int64_t begin, end;
};

struct Counter {
  const AttentionParams& p;
  AttentionPlan plan;
  double pairs = 0, dense_pairs = 0;

  // Keys that query i of a sequence may see by lengths, causality and window.
  Range keys_of(int64_t i, int64_t q_len, int64_t kv_len) const {
    int64_t at = i + (p.align == Align::BottomRight ? kv_len - q_len : 0), end = kv_len, begin = 0;
    if (p.block_mask) end = std::min(end, p.block_mask->kv_length);
    if (p.causal) end = std::min(end, at + 1);
    if (p.window_right >= 0) end = std::min(end, at + p.window_right + 1);
    if (p.window_left >= 0) begin = std::max(begin, at - p.window_left);
    return {begin, std::max(begin, end)};
  }

  // One tile of `rows` queries from q0 and `columns` keys from k0, `times` over; open: the block mask lets all its pairs through.
  void tile(int64_t q0, int64_t rows, int64_t k0, int64_t columns, int64_t q_len, int64_t kv_len, bool open, double times) {
    Range first = keys_of(q0, q_len, kv_len), last = keys_of(q0 + rows - 1, q_len, kv_len);
    int64_t count = static_cast<int64_t>(times);
    if (k0 + columns <= first.begin || k0 >= last.end) {
      plan.skipped += count;
      return;
    }
    bool full = open && !p.mask.data && !p.kv_rows && k0 >= last.begin && k0 + columns <= first.end;
    (full ? plan.full : plan.partial) += count;
    pairs += times * static_cast<double>(rows) * static_cast<double>(columns);
  }

  void sequence(int64_t batch, int64_t q_len, int64_t kv_len) {
    const double heads = static_cast<double>(p.heads_q);
    const int64_t q_tiles = (q_len + plan.tile_q - 1) / plan.tile_q, kv_tiles = (kv_len + plan.tile_kv - 1) / plan.tile_kv;
    dense_pairs += heads * static_cast<double>(q_len) * static_cast<double>(kv_len);
    const BlockMaskView* m = p.block_mask;
    const int64_t head_sets = m && m->head_stride ? p.heads_q : 1;
    const double times = heads / static_cast<double>(head_sets);
    for (int64_t h = 0; h < head_sets; h++)
      for (int64_t t = 0; t < q_tiles; t++) {
        const int64_t q0 = t * plan.tile_q, rows = std::min(plan.tile_q, q_len - q0);
        auto visit = [&](int64_t column, bool open) {
          int64_t k0 = column * plan.tile_kv;
          if (k0 < kv_len) tile(q0, rows, k0, std::min(plan.tile_kv, kv_len - k0), q_len, kv_len, open, times);
        };
        if (!m) {
          for (int64_t c = 0; c < kv_tiles; c++) visit(c, true);
          continue;
        }
        int64_t row = batch * m->batch_stride + h * m->head_stride + t, listed = 0;
        for (int32_t e = m->row_begin[row]; e < m->row_begin[row + 1]; e++) {
          listed += m->columns[e] < kv_tiles;
          visit(m->columns[e], m->tiles[e] < 0);
        }
        plan.skipped += (kv_tiles - listed) * static_cast<int64_t>(times);
      }
  }
};

double grid_bytes(const AttentionGrid& g, const AttentionParams& p) {
  if (!g.data) return 0;
  double n = static_cast<double>(size_of(g.dtype));
  for (auto [stride, extent] : {std::pair{g.sb, p.batch}, {g.sh, p.heads_q}, {g.sq, p.len_q}, {g.skv, p.len_kv}})
    if (stride) n *= static_cast<double>(extent);
  return n;
}

}  // namespace

AttentionPlan plan_attention(const AttentionParams& p) {
  Counter counter{p, {}};
  AttentionPlan& plan = counter.plan;
  plan.tile_q = p.block_mask ? p.block_mask->block_q : kPlanQueries;
  plan.tile_kv = p.block_mask ? p.block_mask->block_kv : kPlanKeys;
  double keys = 0;
  for (int64_t s = 0; s < (p.cu_q ? p.sequences : p.batch); s++) {
    int64_t q_len = p.cu_q ? p.cu_q[s + 1] - p.cu_q[s] : p.len_q, kv_len = p.cu_q ? p.cu_kv[s + 1] - p.cu_kv[s] : p.len_kv;
    if (p.kv_lengths) kv_len = std::clamp<int64_t>(p.kv_lengths[s], 0, kv_len);
    keys += static_cast<double>(kv_len);
    counter.sequence(p.cu_q ? 0 : s, q_len, kv_len);
  }
  const double per_pair = 2 * static_cast<double>(p.dim + p.dim_v), element = static_cast<double>(size_of(p.dtype));
  const double queries = static_cast<double>(p.batch * p.heads_q * p.len_q);
  plan.flops = per_pair * counter.pairs;
  plan.dense_flops = per_pair * counter.dense_pairs;
  plan.bytes = element * (queries + keys * static_cast<double>(p.heads_kv)) * static_cast<double>(p.dim + p.dim_v) + 4 * queries +
               grid_bytes(p.bias, p) + grid_bytes(p.mask, p);
  return plan;
}

}  // namespace fovea
