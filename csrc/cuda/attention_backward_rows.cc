#include "cuda/attention_backward_rows.h"

#include "cuda/attention_backward_params.h"
#include "cuda/grid.h"
#include "cuda/merge_runs.h"

namespace fovea::cuda {
namespace {

constexpr unsigned kRowsThreads = 128;

}  // namespace

ListedGradients::ListedGradients(const AttentionParams& p, AttentionGrads& wanted, int64_t rows, Stream& stream)
    : p_(p), rows_(rows), stream_(stream) {
  take(dk_, wanted.dk, p.dim);
  take(dv_, wanted.dv, p.dim_v);
}

void ListedGradients::take(Part& part, AttentionTensor& wanted, int64_t dim) {
  if (!p_.kv_rows || !wanted.data) return;
  part.to = wanted, part.dim = dim;
  part.memory.reset(new Scratch(stream_.scratch(static_cast<size_t>(p_.batch * p_.heads_kv * p_.len_kv * dim) * sizeof(float))));
  wanted = {part.memory->data(), p_.heads_kv * p_.len_kv * dim, p_.len_kv * dim, dim, 1};
}

void ListedGradients::finish() const {
  if (!dk_.memory && !dv_.memory) return;
  const int64_t heads = p_.kv_rows_sh == 0 ? 1 : p_.heads_kv, lists = heads * (p_.kv_rows_sb == 0 ? 1 : p_.batch), count = p_.len_kv;
  const int chunk = sort_chunk_of(count);
  const Scratch memory = stream_.scratch(static_cast<size_t>((count > chunk ? 2 : 1) * lists * count) * sizeof(uint64_t));
  auto* entries = memory.data<uint64_t>();
  stream_.launch("attention_backward_rows_order", grid_of(lists * ((count + chunk - 1) / chunk)), {static_cast<unsigned>(chunk / 2)},
                 chunk * sizeof(uint64_t),
                 AttentionBackwardOrderParams{p_.kv_rows, p_.kv_rows_sb, p_.kv_rows_sh, heads, count, rows_, entries, chunk});
  const auto* sorted =
      static_cast<const uint64_t*>(merge_runs("sort_merge_32", entries, entries + lists * count, lists, count, chunk, stream_));
  for (const Part* part : {&dk_, &dv_})
    if (part->memory)
      stream_.launch("attention_backward_rows", grid_of((p_.batch * p_.heads_kv * rows_ + kRowsThreads / 32 - 1) / (kRowsThreads / 32)),
                     {kRowsThreads}, 0,
                     AttentionBackwardRowsParams{part->memory->data<float>(), part->to, sorted, p_.kv_rows_sb == 0 ? 0 : heads * count,
                                                 p_.kv_rows_sh == 0 ? 0 : count, p_.batch, p_.heads_kv, rows_, count,
                                                 static_cast<int32_t>(part->dim)});
}

}  // namespace fovea::cuda
