// Where a block finds its sequence, its rows and its place in the grid. See core/attention_params.h for the meaning of every field.
#pragma once

#include "cuda/attention_forward_params.h"
#include "fast_math.cuh"

namespace fovea::cuda {

__device__ __forceinline__ int clamp_to_int(int64_t x) { return static_cast<int>(x < (1 << 30) ? x : (1 << 30)); }

// One sequence: a batch entry, or a packed sequence. Coordinates are relative to it.
struct Sequence {
  int batch;  // of the tensors, bias and masks
  int index;  // of the call: what programs see as b
  int q_begin, q_len, kv_begin, kv_len;
  int diag;
};

// Beginning and length of the packed sequence s, within the `rows` rows there are.
__device__ __forceinline__ void packed_rows(const int32_t* cu, int s, int rows, int longest, int& begin, int& length) {
  begin = min(max(cu[s], 0), rows);
  length = min(min(max(cu[s + 1], begin), rows) - begin, longest);
}

__device__ __forceinline__ Sequence sequence_at(const AttentionForwardParams& params, int s) {
  const AttentionParams& p = params.call;
  Sequence r;
  r.index = s;
  if (p.cu_q) {
    r.batch = 0;
    packed_rows(p.cu_q, s, static_cast<int>(p.len_q), params.limits.sequence_q, r.q_begin, r.q_len);
    packed_rows(p.cu_kv, s, static_cast<int>(p.len_kv), params.limits.sequence_kv, r.kv_begin, r.kv_len);
  } else {
    r.batch = s, r.q_begin = 0, r.q_len = static_cast<int>(p.len_q), r.kv_begin = 0, r.kv_len = static_cast<int>(p.len_kv);
    if (p.kv_lengths) r.kv_len = min(max(p.kv_lengths[s], 0), r.kv_len);
  }
  r.diag = p.align == Align::BottomRight ? r.kv_len - r.q_len : 0;
  return r;
}

// The sequence that slot `slot` of tiles of `rows` rows belongs to, and the tile's first row within it: see attention_tiles.
__device__ __forceinline__ int packed_sequence(const int32_t* cu, int sequences, int slot, int rows, int* first) {
  int lo = 0, hi = sequences;  // the last s with cu[s] / rows + s <= slot
  while (hi - lo > 1) {
    const int mid = (lo + hi) / 2;
    if (cu[mid] / rows + mid <= slot) lo = mid;
    else hi = mid;
  }
  *first = max(slot - (cu[lo] / rows + lo), 0) * rows;
  return lo;
}

struct QueryTilePlace {
  Sequence seq;
  int head, kv_head, first;  // first query
};

// Place of block `index`. Tiles of one head are neighbours, so that they share keys in the cache; causal ones start with the longest.
__device__ __forceinline__ QueryTilePlace query_tile_at(const AttentionForwardParams& params, uint32_t index, int rows) {
  const AttentionParams& p = params.call;
  const uint32_t tiles = static_cast<uint32_t>(params.q_tiles), heads = static_cast<uint32_t>(p.heads_q);
  int slot = static_cast<int>(index % tiles);
  const uint32_t rest = index / tiles;
  if (p.causal) slot = static_cast<int>(tiles) - 1 - slot;
  QueryTilePlace t;
  t.head = static_cast<int>(rest % heads);
  t.kv_head = t.head / (static_cast<int>(heads) / static_cast<int>(p.heads_kv));
  int s = static_cast<int>(rest / heads);
  if (p.cu_q) s = packed_sequence(p.cu_q, static_cast<int>(p.sequences), slot, rows, &t.first);
  else t.first = slot * rows;
  t.seq = sequence_at(params, s);
  return t;
}

// A listed row or page, -1 where it names none.
__device__ __forceinline__ int listed_row(const int32_t* at, int limit) {
  const int row = *at;
  return static_cast<uint32_t>(row) < static_cast<uint32_t>(limit) ? row : -1;
}

// Physical row of query i, -1 if there is none.
template <bool kGeneral>
__device__ __forceinline__ int query_row(const AttentionForwardParams& params, const Sequence& seq, int head, int i) {
  const AttentionParams& p = params.call;
  if (kGeneral && p.q_rows)
    return listed_row(p.q_rows + seq.batch * p.q_rows_sb + head * p.q_rows_sh + seq.q_begin + i, params.limits.q_rows);
  return seq.q_begin + i;
}

// Whether the listed key j of a sequence has a row; true without a list. Pages are not looked at.
template <bool kGeneral>
__device__ __forceinline__ bool key_row_exists(const AttentionForwardParams& params, const Sequence& seq, int kv_head, int j) {
  const AttentionParams& p = params.call;
  return !kGeneral || !p.kv_rows ||
         listed_row(p.kv_rows + seq.batch * p.kv_rows_sb + kv_head * p.kv_rows_sh + seq.kv_begin + j, params.limits.kv_rows) >= 0;
}

// Rows of q (or dout, out) of one tile: row r is query first + r.
template <class T, bool kGeneral>
struct QueryRows {
  const AttentionForwardParams& params;
  const Sequence& seq;
  int head, first;
  int64_t step;
  const T* base;

  __device__ __forceinline__ QueryRows(const AttentionForwardParams& call, const AttentionTensor& t, const QueryTilePlace& at)
      : params(call), seq(at.seq), head(at.head), first(at.first), step(t.sl) {
    base = static_cast<const T*>(t.data) + at.seq.batch * t.sb + at.head * t.sh;
  }
  __device__ __forceinline__ const T* fallback() const { return base; }
  __device__ __forceinline__ const T* operator()(int r) const {
    if (first + r >= seq.q_len) return nullptr;
    const int row = query_row<kGeneral>(params, seq, head, first + r);
    return kGeneral && row < 0 ? nullptr : base + row * step;
  }
};

// Rows of k or v of one key head, dense, listed or paged: key j of the sequence.
template <class T, bool kGeneral>
struct KeyRows {
  const T* base;
  int64_t step;
  int limit, listed_limit;
  const int32_t* rows;
  const int32_t* pages;
  int page_size;
  int64_t page_step;

  __device__ __forceinline__ KeyRows(const AttentionForwardParams& params, const AttentionTensor& t, const Sequence& seq, int kv_head) {
    const AttentionParams& p = params.call;
    step = t.sl, limit = seq.kv_len, listed_limit = params.limits.kv_rows;
    base = static_cast<const T*>(t.data) + kv_head * t.sh;
    rows = kGeneral && p.kv_rows ? p.kv_rows + seq.batch * p.kv_rows_sb + kv_head * p.kv_rows_sh + seq.kv_begin : nullptr;
    pages = kGeneral && p.page_table ? p.page_table + seq.batch * p.page_table_sb : nullptr;
    page_size = kGeneral ? static_cast<int>(p.page_size) : 0, page_step = t.sb;
    if (!kGeneral || !pages) base += seq.batch * t.sb;
    if (!kGeneral || !rows) base += seq.kv_begin * step;
  }
  __device__ __forceinline__ bool listed() const { return kGeneral && (rows || pages); }
  // Whether a listed key has a row; j < limit.
  __device__ __forceinline__ bool exists(int j) const { return listed_row(rows ? rows + j : pages + j / page_size, listed_limit) >= 0; }
  __device__ __forceinline__ const T* at(int j) const {
    if (j >= limit) return nullptr;
    if constexpr (kGeneral) {
      if (rows) {
        const int row = listed_row(rows + j, listed_limit);
        return row < 0 ? nullptr : base + row * step;
      }
      if (pages) {
        const int page = listed_row(pages + j / page_size, listed_limit);
        return page < 0 ? nullptr : base + page * page_step + j % page_size * step;
      }
    }
    return base + j * step;
  }
};

// The rows of one tile of keys, as Tile::fill wants them.
template <class T, bool kGeneral>
struct KeyTileRows {
  const KeyRows<T, kGeneral>& keys;
  int first;
  __device__ __forceinline__ const T* fallback() const { return keys.base; }
  __device__ __forceinline__ const T* operator()(int r) const { return keys.at(first + r); }
};

}  // namespace fovea::cuda
