// Where a tile of an attention call lies and what it may see: enumeration of query tiles, visible key ranges, key blocks, row addresses.
//
// A tile is up to kVectors * kLanes queries of one (sequence, query head), or, when sequences are short, the same queries of several heads
// of a GQA group side by side, so that lanes are not wasted. Causal, window and lengths become one half-open key range per lane; a key
// block inside all ranges is full and runs without mask code. The tile grid depends on shapes only. The non-obvious choice: keys are cut
// into [some lanes | all lanes | some lanes], the middle a multiple of the register tile, so only the two edges pay for masks whatever the
// offset between queries and keys.
#pragma once

#include <cstdint>

#include "core/attention_params.h"
#include "cpu/attention_math.h"

namespace fovea::cpu {
namespace {

constexpr int kTileQueries = kVectors * kLanes;
constexpr int kTileKeys = 128;  // keys a tile visits at once: its scores and queries stay in the L1 cache, O^T is read and written once

FOVEA_INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
FOVEA_INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
FOVEA_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FOVEA_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Sequence `index` of the call: where its rows begin and how many it has.
struct Sequence {
  int64_t batch, index, q_first, kv_first, q_length, kv_length;
};

inline Sequence sequence_at(const AttentionParams& p, int64_t index) {
  if (p.cu_q) {
    int64_t q0 = p.cu_q[index], kv0 = p.cu_kv[index];
    return {0, index, q0, kv0, p.cu_q[index + 1] - q0, p.cu_kv[index + 1] - kv0};
  }
  int64_t kv = p.len_kv;
  if (p.kv_lengths) kv = max64(0, min64(kv, p.kv_lengths[index]));
  return {index, index, 0, 0, p.len_q, kv};
}

inline int64_t sequence_count(const AttentionParams& p) { return p.cu_q ? p.sequences : p.batch; }

// Heads of one GQA group that share a tile: the largest divisor of the group whose queries fit. Not with a block mask or a score program,
// whose bits and head are one per tile.
inline int64_t folded_heads(const AttentionParams& p) {
  int64_t group = p.heads_q / p.heads_kv;
  if (p.cu_q || p.q_rows || p.score || p.block_mask) return 1;
  for (int64_t f = group; f > 1; f--)
    if (group % f == 0 && f * p.len_q <= kTileQueries) return f;
  return 1;
}

// Cuts the queries of one sequence into as few tiles of whole vectors as there can be, whose sizes differ by a vector at most: 64 queries
// are 32 and 32 rather than 48 and 16, which one vector would multiply at half the speed. With a block mask no tile crosses its block rows.
struct TileCut {
  int64_t block, per_block, wide;  // the first `wide` tiles of a block have kVectors vectors, the others one less

  TileCut(const AttentionParams& p, int64_t queries)
      : block(max64(p.block_mask ? p.block_mask->block_q : queries, 1)),
        per_block(ceil_div(block, kTileQueries)),
        wide(max64(ceil_div(block, kLanes) - per_block * (kVectors - 1), 0)) {}
  int64_t count(int64_t queries) const {
    const int64_t whole = queries / block, vectors = ceil_div(queries % block, kLanes);
    const bool among_wide = vectors <= wide * kVectors;
    return whole * per_block + (among_wide ? ceil_div(vectors, kVectors) : ceil_div(vectors - wide, kVectors - 1));
  }
  int64_t first(int64_t tile) const {
    const int64_t i = tile % per_block;
    return tile / per_block * block + (i * (kVectors - 1) + min64(i, wide)) * kLanes;
  }
  int64_t size(int64_t tile, int64_t queries) const {
    const int64_t end = (tile + 1) % per_block ? first(tile + 1) : (tile / per_block + 1) * block;
    return min64(end, queries) - first(tile);
  }
};

// One tile: which queries its lanes hold and the keys each may see.
struct QueryTile {
  Sequence seq;
  int64_t head, kv_head;  // head of lane 0
  int64_t first;          // query of lane 0, within its sequence
  int queries, heads;     // lane = head_offset * queries + query_offset
  int lanes, vectors;     // lanes in use; vectors = ceil(lanes / kLanes)
  bool any_alive;
  alignas(64) int32_t begin[kTileQueries], end[kTileQueries];  // visible key range of each lane; empty for a lane with no query
  int64_t kv_begin, kv_end;                                    // union of the ranges of lanes that see something
  int64_t full_begin, full_end;                                // their intersection

  int64_t head_of(int lane) const { return heads == 1 ? head : head + lane / queries; }
  int64_t query_of(int lane) const { return heads == 1 ? first + lane : first + lane % queries; }
};

// Physical row of query i of (batch, head), -1 if there is none.
FOVEA_INLINE int64_t query_row(const AttentionParams& p, const Sequence& seq, int64_t head, int64_t i) {
  if (p.q_rows) return p.q_rows[seq.batch * p.q_rows_sb + head * p.q_rows_sh + seq.q_first + i];
  return seq.q_first + i;
}

// Row of out and lse of that query, -1 if there is none.
FOVEA_INLINE int64_t result_row(const AttentionParams& p, const Sequence& seq, int64_t head, int64_t i) {
  return p.out_in_order ? seq.q_first + i : query_row(p, seq, head, i);
}

inline void set_ranges(const AttentionParams& p, QueryTile& t) {
  int64_t diagonal = p.align == Align::BottomRight ? t.seq.kv_length - t.seq.q_length : 0;
  int64_t limit = t.seq.kv_length;
  if (p.block_mask) limit = min64(limit, p.block_mask->kv_length);
  t.kv_begin = t.full_end = INT64_MAX;
  t.kv_end = t.full_begin = 0;
  t.any_alive = false;
  for (int lane = 0; lane < kTileQueries; lane++) {
    t.begin[lane] = t.end[lane] = 0;
    if (lane >= t.lanes) continue;
    const int64_t i = t.query_of(lane), at = i + diagonal;
    int64_t lo = 0, hi = limit;
    if (p.q_rows && query_row(p, t.seq, t.head, i) < 0) continue;
    if (p.block_mask && i >= p.block_mask->q_length) continue;
    if (p.window_left >= 0) lo = max64(lo, at - p.window_left);
    if (p.window_right >= 0) hi = min64(hi, at + p.window_right + 1);
    if (p.causal) hi = min64(hi, at + 1);
    if (p.key_ranges) {
      const int32_t* range = p.key_ranges + t.seq.batch * p.key_ranges_sb + t.head_of(lane) * p.key_ranges_sh + 2 * (t.seq.q_first + i);
      lo = max64(lo, range[0]), hi = min64(hi, range[1]);
    }
    if (lo >= hi) continue;
    t.begin[lane] = static_cast<int32_t>(lo);
    t.end[lane] = static_cast<int32_t>(hi);
    t.any_alive = true;
    t.kv_begin = min64(t.kv_begin, lo);
    t.kv_end = max64(t.kv_end, hi);
    t.full_begin = max64(t.full_begin, lo);
    t.full_end = min64(t.full_end, hi);
  }
  if (!t.any_alive) t.kv_begin = t.kv_end = t.full_begin = t.full_end = 0;
}

// Tiles of a call in the order they are handed out: heads of a group one after the other (they share keys), long causal tiles first.
// Packed sequences have different tile counts, summed up in `first_tile`, which the caller fills and owns (sequence_count + 1 entries).
struct TileGrid {
  const AttentionParams& p;
  int64_t heads;  // head groups per sequence
  int64_t fold;
  const int64_t* first_tile;
  int64_t tiles;

  static void fill(const AttentionParams& p, int64_t* first_tile) {
    first_tile[0] = 0;
    for (int64_t s = 0; s < sequence_count(p); s++) {
      const int64_t queries = sequence_at(p, s).q_length;
      first_tile[s + 1] = first_tile[s] + TileCut(p, queries).count(queries);
    }
  }

  TileGrid(const AttentionParams& params, const int64_t* first)
      : p(params), heads(0), fold(folded_heads(params)), first_tile(first), tiles(0) {
    heads = p.heads_q / fold;
    tiles = heads * (first ? first[sequence_count(p)] : TileCut(p, p.len_q).count(p.len_q) * p.batch);
  }

  void at(int64_t index, QueryTile& t) const {
    place(index, t);
    set_ranges(p, t);
  }

  // Which queries the tile holds, not what they see.
  void place(int64_t index, QueryTile& t) const {
    int64_t s = 0, per_head;
    if (first_tile) {
      int64_t lo = 0, hi = sequence_count(p);  // the last s with first_tile[s] * heads <= index
      while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (first_tile[mid] * heads <= index) lo = mid;
        else hi = mid;
      }
      s = lo;
      index -= first_tile[s] * heads;
      per_head = first_tile[s + 1] - first_tile[s];
    } else {
      per_head = TileCut(p, p.len_q).count(p.len_q);
      s = index / (per_head * heads);
      index -= s * per_head * heads;
    }
    int64_t tile = index % per_head;
    if (p.causal) tile = per_head - 1 - tile;
    t.seq = sequence_at(p, s);
    const TileCut cut(p, t.seq.q_length);
    t.head = index / per_head * fold;
    t.kv_head = t.head / (p.heads_q / p.heads_kv);
    t.first = cut.first(tile);
    t.queries = static_cast<int>(cut.size(tile, t.seq.q_length));
    t.heads = static_cast<int>(fold);
    t.lanes = t.queries * t.heads;
    // Lists often end with queries that are none, and then no row is theirs.
    while (p.q_rows && !p.out_in_order && t.lanes > 0 && query_row(p, t.seq, t.head, t.first + t.lanes - 1) < 0) t.lanes--;
    t.vectors = static_cast<int>(ceil_div(max64(t.lanes, 1), kLanes));
  }
};

// A run of keys a tile visits at once.
struct KeyBlock {
  int64_t first;
  int count;            // <= kTileKeys
  const uint8_t* bits;  // bit matrix row of key `first` at the tile's first query, or null: no bits to test
  int64_t bits_pitch;   // bytes from key to key
  int bits_shift;       // bit of lane 0 within the first byte
  bool edge;            // some lane's range does not cover it
};

// Walks the key blocks of a tile in ascending order, within [from, to) of the keys.
class KeyBlocks {
 public:
  KeyBlocks(const AttentionParams& p, const QueryTile& t, int64_t from = 0, int64_t to = INT64_MAX)
      : t_(t), mask_(p.block_mask), from_(max64(from, t.kv_begin)), to_(min64(to, t.kv_end)) {
    if (!mask_) {
      segment_begin_ = from_;
      segment_end_ = to_;
      return;
    }
    if (!t.any_alive) return;
    int64_t row = t.seq.batch * mask_->batch_stride + t.head * mask_->head_stride + t.first / mask_->block_q;
    column_ = mask_->row_begin[row];
    column_end_ = mask_->row_begin[row + 1];
    offset_ = t.first % mask_->block_q;
  }

  bool next(KeyBlock& b) {
    while (segment_begin_ >= segment_end_)
      if (!mask_ || !next_segment()) return false;
    int64_t end = min64(segment_end_, segment_begin_ + kTileKeys);
    b.first = segment_begin_;
    // Cut at the borders of the range all lanes see; the part inside keeps whole register tiles.
    if (b.first < t_.full_begin && t_.full_begin < t_.full_end) end = min64(end, t_.full_begin);
    if (b.first >= t_.full_begin && b.first < t_.full_end && end > t_.full_end) {
      int64_t whole = (t_.full_end - b.first) / kRowsOfTile * kRowsOfTile;
      if (whole > 0) end = b.first + whole;
    }
    b.count = static_cast<int>(end - b.first);
    b.edge = b.first < t_.full_begin || end > t_.full_end;
    b.bits = nullptr;
    if (bits_) {
      b.bits_pitch = mask_->block_q / 8;
      b.bits = bits_ + (b.first - bits_key_) * b.bits_pitch + offset_ / 8;
      b.bits_shift = static_cast<int>(offset_ % 8);
    }
    segment_begin_ = end;
    return true;
  }

 private:
  // Neighbouring full blocks become one segment; a block with bits is a segment of its own.
  bool next_segment() {
    const int64_t size = mask_->block_kv;
    while (column_ < column_end_) {
      int64_t begin = mask_->columns[column_] * size, end = begin + size;
      int32_t tile = mask_->tiles[column_++];
      if (tile < 0)
        for (; column_ < column_end_ && mask_->tiles[column_] < 0 && mask_->columns[column_] * size == end; column_++) end += size;
      bits_ = tile < 0 ? nullptr : mask_->bits + tile * mask_->tile_bytes();
      bits_key_ = begin;
      segment_begin_ = max64(begin, from_);
      segment_end_ = min64(end, to_);
      if (bits_) trim();
      if (segment_begin_ < segment_end_) return true;
    }
    return false;
  }

  // Takes keys no lane sees off both ends of a segment with bits.
  void trim() {
    auto seen = [&](int64_t key) {
      const uint8_t* row = bits_ + (key - bits_key_) * (mask_->block_q / 8) + offset_ / 8;
      int bits = static_cast<int>(offset_ % 8) + t_.lanes;
      uint8_t any = 0;
      for (int i = 0; i < bits / 8; i++) any |= row[i];
      if (bits % 8) any |= static_cast<uint8_t>(row[bits / 8] << (8 - bits % 8));
      return any != 0;
    };
    while (segment_begin_ < segment_end_ && !seen(segment_begin_)) segment_begin_++;
    while (segment_begin_ < segment_end_ && !seen(segment_end_ - 1)) segment_end_--;
  }

  const QueryTile& t_;
  const BlockMaskView* mask_;
  int64_t from_, to_;
  int64_t segment_begin_ = 0, segment_end_ = 0;
  int32_t column_ = 0, column_end_ = 0;
  int64_t offset_ = 0, bits_key_ = 0;
  const uint8_t* bits_ = nullptr;
};

// Element offset of logical key j's row in `tensor` (k or v), -1 when there is no such row.
FOVEA_INLINE int64_t key_row(const AttentionParams& p, const QueryTile& t, const AttentionTensor& tensor, int64_t j) {
  int64_t head = t.kv_head * tensor.sh;
  if (p.page_table) {
    int64_t page = p.page_table[t.seq.batch * p.page_table_sb + j / p.page_size];
    return page < 0 ? -1 : page * tensor.sb + head + j % p.page_size * tensor.sl;
  }
  int64_t row = t.seq.kv_first + j;
  if (p.kv_rows) {
    row = p.kv_rows[t.seq.batch * p.kv_rows_sb + t.kv_head * p.kv_rows_sh + row];
    if (row < 0) return -1;
  }
  return t.seq.batch * tensor.sb + head + row * tensor.sl;
}

// kLanes bits starting at bit `shift` of `row`, as all-ones integers.
FOVEA_INLINE vi expand_bits(const uint8_t* row, int bit) {
#if defined(__AVX512F__)
  const uint8_t* at = row + bit / 8;
  return reinterpret_cast<vi>(_mm512_movm_epi32(static_cast<__mmask16>(at[0] | at[1] << 8)));
#else
  int32_t value = row[bit / 8] >> (bit % 8);
  vi selector;
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) selector[i] = 1 << i;
  return (set1(value) & selector) != 0;
#endif
}

}  // namespace
}  // namespace fovea::cpu
