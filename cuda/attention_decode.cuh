// Attention of few queries over long keys: every key serves a handful of rows only (the queries of all heads of a group), so the kernel
// runs at the speed of memory, and all it has to do is to keep loads under way.
//
// A block has a tile of rows and a range of keys (a split). Its warps share nothing until the end: each takes every kWarps-th run of kKeys
// keys, fetches it by cp.async into a ring of slots of its own (keys of a run, then its values, each a slot), and keeps its own maximum,
// sum and output of all rows, so that the loop has no block-wide barrier. At the end the warps of a block are added up; with several splits
// that is a part, and attention_decode_merge.cu merges the parts as mergeAttentions does.
// The non-obvious choice: a lane finds the address of one row, for all lanes, one run ahead of its use. So pages cost one division and one
// lookup a row, and dense rows take the same path.
#pragma once

#include "async_copy.cuh"
#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "cuda/attention_decode_params.h"
#include "elements.cuh"
#include "float_tile.cuh"

namespace fovea::cuda {

template <class T>
constexpr int decode_threads(int dim) {
  return 32 * (sizeof(T) == 4 ? decode_warps_f32(dim) : decode_warps(dim));
}
__device__ __forceinline__ int decode_lane() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int decode_warp() { return static_cast<int>(threadIdx.y); }

// The block's sequence, rows and keys, in shared memory as registers are scarce, and as long as keeps what follows there aligned. Row r of
// a tile is query (first_row + r) % len_q of head (first_row + r) / len_q of the group.
struct alignas(128) DecodePlace {
  Sequence seq;
  Diagonal diagonal;
  int kv_head, first_head, first_row, rows, len_q, split;
  int begin, end;            // keys of the block
  int full_begin, full_end;  // those that every query sees by lengths, causality and window

  __device__ __forceinline__ void set(const AttentionDecodeParams& params, int tile_rows) {
    const AttentionParams& p = params.attention.call;
    const int heads_kv = static_cast<int>(p.heads_kv), group = static_cast<int>(p.heads_q) / heads_kv;
    int index = static_cast<int>(blockIdx.x);
    first_row = index % params.row_tiles * tile_rows, index /= params.row_tiles;
    split = index % params.splits, index /= params.splits;
    kv_head = index % heads_kv, first_head = kv_head * group;
    seq = sequence_at(params.attention, index / heads_kv);
    diagonal.set(params.attention, seq);
    len_q = static_cast<int>(p.len_q), rows = min(tile_rows, group * len_q - first_row);
    full_begin = diagonal.begin(len_q - 1), full_end = min(diagonal.end(0), diagonal.limit);
    const int from = diagonal.begin(0) / kDecodeKeys * kDecodeKeys, to = min(diagonal.end(len_q - 1), diagonal.limit);
    const int share = (max(to - from, 0) + params.splits - 1) / params.splits;
    const int keys = max((share + kDecodeRound - 1) / kDecodeRound * kDecodeRound, kDecodeLeastKeys);
    begin = from + split * keys, end = min(begin + keys, to);
  }
  __device__ __forceinline__ int head(int r) const { return first_head + (first_row + r) / len_q; }
  __device__ __forceinline__ int query(int r) const { return (first_row + r) % len_q; }
};

__device__ __forceinline__ const DecodePlace& decode_place(const AttentionDecodeParams& params, int tile_rows) {
  __shared__ DecodePlace place;
  if (decode_warp() == 0 && decode_lane() == 0) place.set(params, tile_rows);
  __syncthreads();
  return place;
}

// What one row of the tile needs for its scores. A row that is not there sees nothing.
struct DecodeRow {
  int begin, end;
  int head, query;
  const void* bias;     // of key 0
  const uint8_t* mask;  // of key 0

  __device__ __forceinline__ DecodeRow(const AttentionParams& p, const DecodePlace& at, int r)
      : begin(0), end(0), head(at.head(min(r, at.rows - 1))), query(at.query(r)), bias(nullptr), mask(nullptr) {
    if (r >= at.rows) return;
    begin = at.diagonal.begin(query), end = min(at.diagonal.end(query), at.diagonal.limit);
    if (p.bias.data) bias = grid_tile(p.bias, at.seq, head, query, 0);
    if (p.mask.data) mask = static_cast<const uint8_t*>(p.mask.data) + at.seq.batch * p.mask.sb + head * p.mask.sh + query * p.mask.sq;
  }
};

// A dot product as a score in base-2 units, without a mask. A program is preceded by begin_scores for the row's head.
template <bool kProgram>
__device__ __forceinline__ float decode_score(const AttentionParams& p, const DecodePlace& at, const DecodeRow& row, float dot, int key) {
  float s = p.softcap > 0 ? soft_cap(dot * p.scale, p.softcap) * kLog2E : dot * (p.scale * kLog2E);
  if constexpr (kProgram) {
    s = p.softcap > 0 ? soft_cap(dot * p.scale, p.softcap) : dot * p.scale;
    apply_score(s, at.seq.index, row.head, row.query + static_cast<int>(p.q_offset), key + static_cast<int>(p.kv_offset));
    s *= kLog2E;
  }
  if (row.bias && key >= row.begin && key < row.end) s = fmaf(grid_element(row.bias, p.bias.dtype, key * p.bias.skv), kLog2E, s);
  return s;
}

__device__ __forceinline__ bool decode_sees(const AttentionParams& p, const DecodeRow& row, int key) {
  return key >= row.begin && key < row.end && (!row.mask || row.mask[key * p.mask.skv]);
}

// The ring of one warp. Fill::fill(slot, row_at, dim, step, wide) copies kKeys rows, row_at(r) of them, to a slot.
template <class Element, int kKeys, int kSlots, int kSlotBytes, int kWarps, class Fill>
class DecodeRing {
 public:
  // `there` has a word of shared memory for each slot.
  __device__ __forceinline__ DecodeRing(const AttentionDecodeParams& params, const DecodePlace& at, uint32_t memory, uint32_t* there)
      : params_(params.attention),
        rows_(params.attention, operand(params.attention.call), at.seq, at.kv_head),
        memory_(memory),
        there_(there),
        next_(at.begin + decode_warp() * kKeys),
        end_(at.end) {
    find_rows();
#pragma unroll 1
    for (int i = 0; i < kSlots - 1; i++) fetch();
  }

  // Waits for the slot to be read next, and has another fetched to the place of the last one. Its address.
  __device__ __forceinline__ uint32_t advance() {
    wait_copies<kSlots - 2>();
    __syncwarp();
    fetch();
    const uint32_t slot = memory_ + static_cast<uint32_t>(read_ * kSlotBytes);
    present_ = there_[read_];
    read_ = read_ + 1 == kSlots ? 0 : read_ + 1;
    return slot;
  }
  // Bit i: the row i of the slot that advance() gave exists.
  __device__ __forceinline__ uint32_t present() const { return present_; }

 private:
  // Lanes look up keys and values in turn, kKeys of them each.
  static __device__ __forceinline__ bool finds_values() { return decode_lane() / kKeys % 2 != 0; }
  static __device__ __forceinline__ AttentionTensor operand(const AttentionParams& p) {
    AttentionTensor t;
    t.data = finds_values() ? p.v.data : p.k.data;
    t.sb = finds_values() ? p.v.sb : p.k.sb, t.sh = finds_values() ? p.v.sh : p.k.sh, t.sl = finds_values() ? p.v.sl : p.k.sl;
    return t;
  }
  __device__ __forceinline__ void find_rows() {
    found_ = next_ < end_ ? reinterpret_cast<unsigned long long>(rows_.at(next_ + decode_lane() % kKeys)) : 0;
  }

  struct Rows {
    unsigned long long found;
    int first;
    const Element* other;
    __device__ __forceinline__ const Element* fallback() const { return other; }
    __device__ __forceinline__ const Element* operator()(int r) const {
      return reinterpret_cast<const Element*>(__shfl_sync(~0u, found, first + r));
    }
  };

  __device__ __forceinline__ void fetch() {
    const AttentionParams& p = params_.call;
    if (next_ < end_) {
      const Rows rows{found_, value_ ? kKeys : 0, static_cast<const Element*>(p.k.data)};
      const uint32_t there = __ballot_sync(~0u, found_ != 0) & ((1u << kKeys) - 1);
      if (decode_lane() == 0) there_[write_] = there;
      Fill::fill(memory_ + static_cast<uint32_t>(write_ * kSlotBytes), rows, static_cast<int>(value_ ? p.dim_v : p.dim),
                 value_ ? p.v.sd : p.k.sd, (params_.wide & (value_ ? kWideValue : kWideKey)) != 0);
      if (value_) {
        next_ += kWarps * kKeys;
        find_rows();
      }
      value_ = !value_;
      write_ = write_ + 1 == kSlots ? 0 : write_ + 1;
    }
    commit_copies();
  }

  const AttentionForwardParams& params_;
  const KeyRows<Element, true> rows_;
  const uint32_t memory_;
  uint32_t* const there_;
  int next_;  // first key of the run to fetch next
  const int end_;
  unsigned long long found_;  // address of the row this lane looked up, 0 = none
  bool value_ = false;        // its values are next
  int write_ = 0, read_ = 0;
  uint32_t present_ = 0;
};

// Adds the warps up and writes the rows: outs [kWarps][kTileRows][kPitch] unnormalised, maxima and sums [kWarps][kTileRows], base 2.
template <class T, int kWarps, int kTileRows, int kDim, int kPitch>
__device__ __forceinline__ void finish_decode(const AttentionDecodeParams& params, const DecodePlace& at, const float* outs,
                                              const float* tops, const float* sums) {
  const AttentionParams& p = params.attention.call;
  constexpr int kPieces = kDim / 4;
  for (int i = decode_warp() * 32 + decode_lane(); i < at.rows * kPieces; i += kWarps * 32) {
    const int r = i / kPieces, d = i % kPieces * 4, head = at.head(r), query = at.query(r);
    float top = -infinity(), sum = 0, out[4] = {};
#pragma unroll
    for (int w = 0; w < kWarps; w++) top = fmaxf(top, tops[w * kTileRows + r]);
#pragma unroll
    for (int w = 0; w < kWarps; w++) {
      const float weight = top == -infinity() ? 0.f : exp2_fast(tops[w * kTileRows + r] - top);
      const float4 part = *reinterpret_cast<const float4*>(outs + (w * kTileRows + r) * kPitch + d);
      sum = fmaf(weight, sums[w * kTileRows + r], sum);
      scale_add(out, weight, part);
    }
    const float inverse = sum == 0.f ? 0.f : 1.f / sum, lse = sum == 0.f ? -infinity() : top * kLn2 + logf(sum);
#pragma unroll
    for (int e = 0; e < 4; e++) out[e] *= inverse;
    if (params.splits > 1) {
      const int64_t part = ((at.seq.batch * p.heads_q + head) * p.len_q + query) * params.splits + at.split;
      if (d == 0) params.lses[part] = lse;
      if (d < params.pitch) *reinterpret_cast<float4*>(params.outs + part * params.pitch + d) = make_float4(out[0], out[1], out[2], out[3]);
      continue;
    }
    if (d == 0 && p.lse) p.lse[at.seq.batch * p.lse_sb + head * p.lse_sh + query * p.lse_sl] = lse;
    T* to = static_cast<T*>(p.out.data) + at.seq.batch * p.out.sb + head * p.out.sh + query * p.out.sl;
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (d + e < p.dim_v) to[(d + e) * p.out.sd] = narrow<T>(out[e]);
  }
}

// A split without keys, one of several: its parts weigh nothing.
__device__ __forceinline__ void leave_decode(const AttentionDecodeParams& params, const DecodePlace& at) {
  const AttentionParams& p = params.attention.call;
  const int r = decode_warp() * 32 + decode_lane();
  if (r >= at.rows) return;
  params.lses[((at.seq.batch * p.heads_q + at.head(r)) * p.len_q + at.query(r)) * params.splits + at.split] = -infinity();
}

}  // namespace fovea::cuda
