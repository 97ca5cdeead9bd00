// Which keys a tile of queries visits, and which pairs of a visited tile are visible.
//
// Structural limits give each tile a range of keys; a block mask thins it. Lane r of every warp keeps a cursor into the entries of mask row
// r of the query tile, so the next tile is one redux away and no list has to be built. Block masks of any block size work.
// A warp sees a tile of keys in full (no mask code runs) or by words: lane l holds, for key l of 32, one bit per query row of its warp.
// Every kind of mask ends as an AND on these words, and an element is tested by a shuffle and a shift.
#pragma once

#include "attention_call.cuh"

namespace fovea::cuda {

__device__ __forceinline__ uint32_t bit_range(int from, int to) {
  const uint32_t below = to >= 32 ? ~0u : to <= 0 ? 0u : (1u << to) - 1;
  return from >= 32 ? 0u : from <= 0 ? below : below & (~0u << from);
}

// Limits by lengths, causality and window, of any rows of a sequence.
struct Diagonal {
  int limit, diag;  // keys beyond limit are masked
  int right, left;  // key <= query + diag + right, key >= query + diag - left
  int rows;         // queries beyond are masked
  static constexpr int kFar = 1 << 30;

  __device__ __forceinline__ void set(const AttentionForwardParams& params, const Sequence& seq) {
    const AttentionParams& p = params.call;
    limit = seq.kv_len, diag = seq.diag, rows = kFar;
    if (params.block.row_begin) {
      limit = min(limit, clamp_to_int(params.block.kv_length));
      rows = clamp_to_int(params.block.q_length);
    }
    right = p.causal ? 0 : kFar;
    if (p.window_right >= 0) right = min(right, clamp_to_int(p.window_right));
    left = p.window_left >= 0 ? clamp_to_int(p.window_left) : kFar;
  }
  __device__ __forceinline__ int begin(int first) const { return max(0, first + diag - left); }
  __device__ __forceinline__ int end(int last) const { return right == kFar ? limit : min(limit, last + diag + right + 1); }
  // All of keys [j0, j1) are visible to all of queries [first, last].
  __device__ __forceinline__ bool covers(int first, int last, int j0, int j1) const {
    return j1 <= limit && last < rows && j0 >= begin(last) && j1 <= end(first);
  }
  // Bit i: query first + i sees key j.
  __device__ __forceinline__ uint32_t word(int first, int j) const {
    if (j >= limit) return 0;
    const int on = j - diag - first;  // the row that sits on key j
    const int from = right == kFar ? 0 : on - right, to = left == kFar ? 32 : on + left + 1;
    return bit_range(from, min(to, rows - first));
  }
};

// What a block knows about its place. It lies in shared memory and is read where it is needed: in registers it would cost accumulators.
struct Place {
  QueryTilePlace at;
  Diagonal diagonal;
  int reserved;  // whole vectors are loaded
};
static_assert(sizeof(Place) == 64);

__device__ __forceinline__ const Place& query_place(const AttentionForwardParams& params, uint32_t index, int rows) {
  __shared__ __align__(128) Place place[2];  // the second keeps dynamic shared memory aligned
  if (threadIdx.x == 0) {
    place[0].at = query_tile_at(params, index, rows);
    place[0].diagonal.set(params, place[0].at.seq);
    place[0].reserved = 0;
  }
  __syncthreads();
  return place[0];
}

// Cursors into a block mask: lane r walks the entries of mask row r of a query tile, in ascending order. Without a mask (or without
// kGeneral) every tile of keys is visited.
template <int kKeys, bool kGeneral>
class BlockCursor {
 public:
  __device__ __forceinline__ BlockCursor(const AttentionForwardParams& params, const Sequence& seq, int head, int first, int last)
      : m_(params.block), lane_(static_cast<int>(threadIdx.x) & 31) {
    row0_ = rows_ = cursor_ = end_ = 0;
    if (!present()) return;
    row0_ = first / m_.block_q;
    rows_ = min(last / m_.block_q, m_.q_blocks - 1) - row0_ + 1;
    if (lane_ < rows_) {
      const int row = seq.batch * m_.batch_stride + head * m_.head_stride + row0_ + lane_;
      cursor_ = m_.row_begin[row], end_ = m_.row_begin[row + 1];
    }
  }

  __device__ __forceinline__ bool present() const { return kGeneral && m_.row_begin; }

  // First tile of keys from j0 (a multiple of kKeys) on that has an entry, as its first key; at least `end` when there is none.
  __device__ __forceinline__ int seek(int j0, int end) {
    if (!present()) return j0;
    while (cursor_ < end_ && (m_.columns[cursor_] + 1) * m_.block_kv <= j0) cursor_++;
    const int next = cursor_ < end_ ? max(j0, m_.columns[cursor_] * m_.block_kv / kKeys * kKeys) : 1 << 30;
    const int found = __reduce_min_sync(~0u, next);
    return found < end ? found : 1 << 30;
  }

  // Moves on to the first entry at or behind key j0, by bisection.
  __device__ __forceinline__ void skip_to(int j0) {
    int hi = end_;
    while (cursor_ < hi) {
      const int mid = (cursor_ + hi) / 2;
      if ((m_.columns[mid] + 1) * m_.block_kv <= j0) cursor_ = mid + 1;
      else hi = mid;
    }
  }

  // Every pair of keys [j0, j1) is visible by the mask. The cursor stands at j0.
  __device__ __forceinline__ bool full(int j0, int j1) const {
    bool whole = true;
    if (lane_ < rows_) {
      const int first = j0 / m_.block_kv, last = (j1 - 1) / m_.block_kv;
      int found = 0;
      for (int e = cursor_; e < end_ && m_.columns[e] <= last; e++) found += m_.columns[e] >= first && m_.tiles[e] < 0;
      whole = found == last - first + 1;
    }
    return __all_sync(~0u, whole);
  }

  // Bits of queries [first, first + kRows) for key j of this lane, in the tile of keys [j0, j0 + kKeys).
  template <int kRows>
  __device__ __forceinline__ uint32_t word(int first, int j0, int j) const {
    uint32_t word = 0;
    for (int r = 0; r < rows_; r++) {
      const int start = first - (row0_ + r) * m_.block_q;  // bit of the mask row that is bit 0 of the word
      const int from = __shfl_sync(~0u, cursor_, r), to = __shfl_sync(~0u, end_, r);
      if (start <= -kRows || start >= m_.block_q) continue;
      for (int e = from; e < to; e++) {
        const int key = m_.columns[e] * m_.block_kv;
        if (key >= j0 + kKeys) break;
        if (j < key || j >= key + m_.block_kv) continue;
        const int tile = m_.tiles[e];
        const uint8_t* row = m_.bits + (static_cast<int64_t>(tile) * m_.block_kv + (j - key)) * (m_.block_q / 8);
        if (tile < 0) {
          word |= bit_range(-start, m_.block_q - start);
        } else {
#pragma unroll
          for (int half = 0; half < kRows; half += 16) {
            const int bit = start + half;
            if (bit >= 0 && bit < m_.block_q) word |= static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(row + bit / 8)) << half;
          }
        }
      }
    }
    return word;
  }

 private:
  const BlockMaskView& m_;
  int lane_, row0_, rows_, cursor_, end_;
};

// Key ranges of the rows of a warp, one a lane. A row that isn't there has all keys.
class RowRanges {
 public:
  template <int kRows>
  static __device__ __forceinline__ RowRanges of(const AttentionParams& p, const Sequence& seq, int head, int first) {
    const int lane = static_cast<int>(threadIdx.x) & 31, i = first + lane;
    RowRanges r{0, Diagonal::kFar};
    if (lane < kRows && i < seq.q_len) r.load(p, seq, head, i);
    return r;
  }
  // Narrows the keys [begin, end) that a tile visits to the union of its queries' ranges.
  static __device__ __forceinline__ void clip(const AttentionParams& p, const Sequence& seq, int head, int first, int last, int& begin,
                                              int& end) {
    int lo = Diagonal::kFar, hi = 0;
    for (int i = first + (static_cast<int>(threadIdx.x) & 31); i <= last; i += 32) {
      RowRanges r;
      r.load(p, seq, head, i);
      if (r.begin_ < r.end_) lo = min(lo, r.begin_), hi = max(hi, r.end_);
    }
    begin = max(begin, __reduce_min_sync(~0u, lo));
    end = min(end, __reduce_max_sync(~0u, hi));
  }
  __device__ __forceinline__ bool covers(int j0, int j1) const { return __all_sync(~0u, begin_ <= j0 && end_ >= j1); }
  // Bit i: row i of the warp sees key j of this lane.
  template <int kRows>
  __device__ __forceinline__ uint32_t word(int j) const {
    uint32_t word = 0;
#pragma unroll 4
    for (int i = 0; i < kRows; i++) {
      const int begin = __shfl_sync(~0u, begin_, i), end = __shfl_sync(~0u, end_, i);
      word |= static_cast<uint32_t>(j >= begin && j < end) << i;
    }
    return word;
  }

  RowRanges() = default;

 private:
  __device__ __forceinline__ RowRanges(int begin, int end) : begin_(begin), end_(end) {}
  __device__ __forceinline__ void load(const AttentionParams& p, const Sequence& seq, int head, int i) {
    const int32_t* at = p.key_ranges + seq.batch * p.key_ranges_sb + head * p.key_ranges_sh + 2 * static_cast<int64_t>(seq.q_begin + i);
    begin_ = at[0], end_ = at[1];
  }
  int begin_, end_;
};

// Bit i: the range of query first + i has key j.
__device__ __forceinline__ uint32_t key_range_word(const AttentionParams& p, const Sequence& seq, int head, int first, int j) {
  const int32_t* at = p.key_ranges + seq.batch * p.key_ranges_sb + head * p.key_ranges_sh + 2 * static_cast<int64_t>(seq.q_begin + first);
  uint32_t word = 0;
  for (int i = 0; i < 32 && first + i < seq.q_len; i++) word |= static_cast<uint32_t>(j >= at[2 * i] && j < at[2 * i + 1]) << i;
  return word;
}

// Bits of a boolean mask tensor for key j: queries [first, first + kRows), those of `word` alone.
template <int kRows>
__device__ __forceinline__ uint32_t and_mask_tensor(const AttentionGrid& mask, const Sequence& seq, int head, int first, int j,
                                                    uint32_t word) {
  const uint8_t* at = static_cast<const uint8_t*>(mask.data) + seq.batch * mask.sb + head * mask.sh + first * mask.sq + j * mask.skv;
  word &= bit_range(0, seq.q_len - first);
  uint32_t seen = 0;
#pragma unroll 8
  for (int i = 0; i < kRows; i++)
    if (word >> i & 1) seen |= static_cast<uint32_t>(at[i * mask.sq] != 0) << i;
  return seen;
}

}  // namespace fovea::cuda
