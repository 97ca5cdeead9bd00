// Who sums the gradient of a bias: P and dP are computed once more, with one owner for every element of the bias, so that each sum has one
// order.
//
// An owner is a tile of the bias: an entry of its batch, a head, a tile of queries, a tile of keys, as far as the bias is not broadcast
// over them. What it is broadcast over, the owner visits in ascending order: sequences, heads, tiles of queries, and keys from first to
// last. Where there are few owners, several blocks share one (`parts`), each with a run of its visits; their sums are added in order.
#pragma once

#include "attention_call.cuh"
#include "cuda/attention_backward_params.h"

namespace fovea::cuda {

template <int kRows, int kKeys, int kThreads>
class BiasOwner {
 public:
  static constexpr int kPitch = kKeys + 1;  // of the tile of sums

  __device__ __forceinline__ explicit BiasOwner(const AttentionBackwardParams& params)
      : params_(params), plan_(params.bias), grid_(params.grads.dbias) {
    uint32_t rest = blockIdx.x;
    auto take = [&](int n) {
      const int i = static_cast<int>(rest % static_cast<uint32_t>(n));
      rest /= static_cast<uint32_t>(n);
      return i;
    };
    part_ = take(plan_.parts), kv_tile_ = take(plan_.kv_tiles), q_tile_ = take(plan_.q_tiles), head_ = take(plan_.heads);
    sequence_ = static_cast<int>(rest);
  }

  // f(place) for the tiles of queries that this block visits.
  template <class F>
  __device__ __forceinline__ void each(F&& f) const {
    const int64_t all = static_cast<int64_t>(plan_.each_sequences) * plan_.each_heads * plan_.each_q_tiles;
    const int64_t end = all * (part_ + 1) / plan_.parts;
    const int group = static_cast<int>(params_.forward.call.heads_q / params_.forward.call.heads_kv);
    for (int64_t i = all * part_ / plan_.parts; i < end; i++) {
      const int tile = static_cast<int>(i % plan_.each_q_tiles), head = static_cast<int>(i / plan_.each_q_tiles % plan_.each_heads);
      const int sequence = static_cast<int>(i / plan_.each_q_tiles / plan_.each_heads);
      QueryTilePlace at;
      at.seq = sequence_at(params_.forward, sequence_ * plan_.each_sequences + sequence);
      at.head = head_ * plan_.each_heads + head, at.kv_head = at.head / group;
      at.first = (q_tile_ * plan_.each_q_tiles + tile) * kRows;
      if (at.first < at.seq.q_len) f(at);
    }
  }

  // Narrows keys [begin, end) to those of this owner.
  __device__ __forceinline__ void clip(int& begin, int& end) const {
    if (!grid_.skv) return;
    begin = max(begin, kv_tile_ * kKeys);
    end = min(end, (kv_tile_ + 1) * kKeys);
  }

  // Writes the sums of a tile, [kRows][kPitch] in shared memory, which is overwritten. All threads come here.
  __device__ __forceinline__ void store(float* sums) const {
    const int thread = static_cast<int>(threadIdx.x), rows = grid_.sq ? kRows : 1, keys = grid_.skv ? kKeys : 1;
    __syncthreads();
    if (!grid_.sq) {
      for (int c = thread; c < kKeys; c += kThreads)
        for (int r = 1; r < kRows; r++) sums[c] += sums[r * kPitch + c];
      __syncthreads();
    }
    if (!grid_.skv) {
      for (int r = thread; r < rows; r += kThreads)
        for (int c = 1; c < kKeys; c++) sums[r * kPitch] += sums[r * kPitch + c];
      __syncthreads();
    }
    float* to = plan_.to + part_ * plan_.count + sequence_ * grid_.sb + head_ * grid_.sh;
    for (int i = thread; i < rows * keys; i += kThreads) {
      const int r = i / keys, c = i % keys, query = q_tile_ * kRows + r, key = kv_tile_ * kKeys + c;
      if ((grid_.sq && query >= plan_.len_q) || (grid_.skv && key >= plan_.len_kv)) continue;
      to[query * grid_.sq + key * grid_.skv] = sums[r * kPitch + c];
    }
  }

 private:
  const AttentionBackwardParams& params_;
  const BiasGradient& plan_;
  const AttentionGrid& grid_;
  int part_, kv_tile_, q_tile_, head_, sequence_;
};

}  // namespace fovea::cuda
