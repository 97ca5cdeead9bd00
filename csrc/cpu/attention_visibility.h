// Which pairs of one (query tile x key block) are visible, as one 64-bit word a key: bit i is query q0 + i of the tile.
//
// All structural limits meet here: lengths, causal, window, absent rows, block mask, mask tensor. The analytic ones give each tile a key
// range, so that keys outside it are never visited; within the range a block is None, Full (no mask code runs) or Part (words are filled).
// Block masks of any block size work: a tile may straddle several mask rows and a key block several mask columns; a cursor for each mask
// row moves forward as the tile walks its keys in ascending order.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/attention_params.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int kTileQ = 64;    // queries of a tile
constexpr int kBlockKv = 64;  // keys of a block
constexpr int kMaskRows = kTileQ / 16 + 1;

// One sequence: a batch entry, or a packed sequence. Coordinates are relative to it; rows are those of the tensors.
struct AttentionSequence {
  int64_t batch;  // of the tensors, bias and masks
  int64_t index;  // of the call: what programs see as b
  int64_t q_begin, q_len;
  int64_t kv_begin, kv_rows, kv_len;  // kv_len <= kv_rows are in use
  int64_t diag;
};

inline AttentionSequence attention_sequence(const AttentionParams& p, int64_t s) {
  AttentionSequence r;
  r.index = s;
  if (p.cu_q) {
    r.batch = 0, r.q_begin = p.cu_q[s], r.q_len = p.cu_q[s + 1] - r.q_begin;
    r.kv_begin = p.cu_kv[s], r.kv_rows = p.cu_kv[s + 1] - r.kv_begin, r.kv_len = r.kv_rows;
  } else {
    r.batch = s, r.q_begin = 0, r.q_len = p.len_q, r.kv_begin = 0, r.kv_rows = p.len_kv, r.kv_len = p.len_kv;
    if (p.kv_lengths) {
      int64_t n = p.kv_lengths[s];
      r.kv_len = n < 0 ? 0 : n < p.len_kv ? n : p.len_kv;
    }
  }
  r.diag = p.align == Align::BottomRight ? r.kv_len - r.q_len : 0;
  return r;
}

// Bits [from, to) of a word, clamped to [0, 64).
FOVEA_INLINE uint64_t bit_range(int64_t from, int64_t to) {
  if (from < 0) from = 0;
  if (to > 64) to = 64;
  if (from >= to) return 0;
  uint64_t below = to == 64 ? ~uint64_t{0} : (uint64_t{1} << to) - 1;
  return below & ~((uint64_t{1} << from) - 1);
}

// Bits [start, start + 64) of a bit row of `bits` bits; start is a multiple of 8, and bits outside the row are 0.
inline uint64_t word_at(const uint8_t* row, int bits, int start) {
  uint64_t word = 0;
  int skip = start > 0 ? start / 8 : 0, bytes = bits / 8 - skip;
  memcpy(&word, row + skip, bytes < 8 ? bytes : 8);
  return start < 0 ? word << -start : word;
}

enum class Visible { None, Part, Full };

class TileVisibility {
 public:
  TileVisibility() = default;

  void start(const AttentionParams& p, const AttentionSequence& seq, int64_t head, int64_t q0) {
    p_ = &p, seq_ = &seq, head_ = head, q0_ = q0;
    nq_ = static_cast<int>(seq.q_len - q0 < kTileQ ? seq.q_len - q0 : kTileQ);
    lanes_ = bit_range(0, nq_);
    int64_t diag = seq.diag, last = q0 + nq_ - 1;
    lo_ = 0, hi_ = seq.kv_len;
    if (p.causal && hi_ > last + diag + 1) hi_ = last + diag + 1;
    if (p.window_right >= 0 && hi_ > last + diag + p.window_right + 1) hi_ = last + diag + p.window_right + 1;
    if (p.window_left >= 0 && lo_ < q0 + diag - p.window_left) lo_ = q0 + diag - p.window_left;
    if (p.key_ranges) start_ranges();
    if (p.block_mask) start_block_mask(*p.block_mask);
    if (lo_ > hi_) lo_ = hi_ = 0;
    if (hi_ < 0) lo_ = hi_ = 0;
  }

  int64_t lo() const { return lo_; }
  int64_t hi() const { return hi_; }
  int queries() const { return nq_; }
  uint64_t lanes() const { return lanes_; }

  // Takes queries out of the tile (absent rows, rows with nothing visible).
  void drop(int query) { lanes_ &= ~(uint64_t{1} << query); }

  // Keys [j0, j1) of one block, within [lo, hi) and ascending from call to call. Fills words[0, j1 - j0) when the answer is Part; row(j) is
  // false for a key that has no physical row.
  template <class HasRow>
  Visible of(int64_t j0, int64_t j1, uint64_t* words, HasRow&& has_row) {
    const AttentionParams& p = *p_;
    int n = static_cast<int>(j1 - j0);
    Visible state = Visible::Full;
    if (p.block_mask) state = block_mask(*p.block_mask, j0, j1, words);
    if (state == Visible::None) return state;
    bool inside = within_diagonals(j0, j1) && !p.kv_rows && !p.mask.data;
    if (state == Visible::Full && inside) return state;
    if (state == Visible::Full)
      for (int j = 0; j < n; j++) words[j] = lanes_;
    if (!within_diagonals(j0, j1))
      for (int j = 0; j < n; j++) words[j] &= diagonal_word(j0 + j);
    if (p.key_ranges && !(j0 >= shared_lo_ && j1 <= shared_hi_)) and_ranges(j0, n, words);
    if (p.mask.data) and_mask_tensor(j0, n, words);
    uint64_t any = 0, all = lanes_;
    for (int j = 0; j < n; j++) {
      words[j] = has_row(j0 + j) ? words[j] & lanes_ : 0;
      any |= words[j], all &= words[j];
    }
    return any == 0 ? Visible::None : all == lanes_ ? Visible::Full : Visible::Part;
  }

 private:
  bool within_diagonals(int64_t j0, int64_t j1) const {
    const AttentionParams& p = *p_;
    int64_t first = q0_ + seq_->diag, last = first + nq_ - 1;
    return (!p.causal || j1 - 1 <= first) && (p.window_right < 0 || j1 - 1 <= first + p.window_right) &&
           (p.window_left < 0 || j0 >= last - p.window_left) && (!p.key_ranges || (j0 >= shared_lo_ && j1 <= shared_hi_));
  }

  uint64_t diagonal_word(int64_t j) const {
    const AttentionParams& p = *p_;
    int64_t on = j - seq_->diag - q0_, from = 0, to = kTileQ;  // the query of this tile that sits on key j
    if (p.causal) from = on;
    if (p.window_right >= 0 && from < on - p.window_right) from = on - p.window_right;
    if (p.window_left >= 0 && to > on + p.window_left + 1) to = on + p.window_left + 1;
    return bit_range(from, to);
  }

  void start_ranges() {
    const AttentionParams& p = *p_;
    ranges_ = p.key_ranges + seq_->batch * p.key_ranges_sb + head_ * p.key_ranges_sh + 2 * (seq_->q_begin + q0_);
    int64_t lo = INT64_MAX, hi = 0;
    shared_lo_ = 0, shared_hi_ = INT64_MAX;
    for (int i = 0; i < nq_; i++) {
      const int64_t begin = ranges_[2 * i], end = ranges_[2 * i + 1];
      if (begin > shared_lo_) shared_lo_ = begin;
      if (end < shared_hi_) shared_hi_ = end;
      if (begin >= end) continue;
      if (begin < lo) lo = begin;
      if (end > hi) hi = end;
    }
    if (lo_ < lo) lo_ = lo;
    if (hi_ > hi) hi_ = hi;
  }

  // A query's bit flips where its range begins and where it ends.
  void and_ranges(int64_t j0, int n, uint64_t* words) const {
    uint64_t flips[kBlockKv + 1] = {}, seen = 0;
    for (int i = 0; i < nq_; i++) {
      const int64_t begin = ranges_[2 * i] - j0, end = ranges_[2 * i + 1] - j0;
      if (begin >= end || begin >= n || end <= 0) continue;
      flips[begin < 0 ? 0 : begin] ^= uint64_t{1} << i;
      flips[end > n ? n : end] ^= uint64_t{1} << i;
    }
    for (int j = 0; j < n; j++) words[j] &= seen ^= flips[j];
  }

  void start_block_mask(const BlockMaskView& m) {
    if (hi_ > m.kv_length) hi_ = m.kv_length;
    lanes_ &= bit_range(0, m.q_length - q0_);
    int64_t first = q0_ / m.block_q, last = (q0_ + nq_ - 1) / m.block_q;
    if (last >= m.q_blocks) last = m.q_blocks - 1;
    mask_row_ = first, mask_rows_ = last < first ? 0 : static_cast<int>(last - first + 1);
    int64_t base = seq_->batch * m.batch_stride + head_ * m.head_stride;
    for (int r = 0; r < mask_rows_; r++) cursor_[r] = m.row_begin[base + first + r], end_[r] = m.row_begin[base + first + r + 1];
  }

  Visible block_mask(const BlockMaskView& m, int64_t j0, int64_t j1, uint64_t* words) {
    int32_t c0 = static_cast<int32_t>(j0 / m.block_kv), c1 = static_cast<int32_t>((j1 - 1) / m.block_kv);
    int found = 0, full = 0;
    for (int r = 0; r < mask_rows_; r++) {
      while (cursor_[r] < end_[r] && m.columns[cursor_[r]] < c0) cursor_[r]++;
      for (int32_t e = cursor_[r]; e < end_[r] && m.columns[e] <= c1; e++) found++, full += m.tiles[e] < 0;
    }
    if (found == 0) return Visible::None;
    int64_t rows = (q0_ + nq_ - 1) / m.block_q - mask_row_ + 1;
    if (full == rows * (c1 - c0 + 1)) return Visible::Full;
    for (int64_t j = j0; j < j1; j++) words[j - j0] = 0;
    for (int r = 0; r < mask_rows_; r++)
      for (int32_t e = cursor_[r]; e < end_[r] && m.columns[e] <= c1; e++) or_entry(m, r, e, j0, j1, words);
    return Visible::Part;
  }

  void or_entry(const BlockMaskView& m, int r, int32_t entry, int64_t j0, int64_t j1, uint64_t* words) const {
    int64_t column = static_cast<int64_t>(m.columns[entry]) * m.block_kv;
    int64_t from = column > j0 ? column : j0, to = column + m.block_kv < j1 ? column + m.block_kv : j1;
    int start = static_cast<int>(q0_ - (mask_row_ + r) * m.block_q);
    uint64_t whole = bit_range(-start, m.block_q - start);
    const uint8_t* bits = m.tiles[entry] < 0 ? nullptr : m.bits + m.tiles[entry] * m.tile_bytes();
    for (int64_t j = from; j < to; j++) words[j - j0] |= bits ? word_at(bits + (j - column) * (m.block_q / 8), m.block_q, start) : whole;
  }

  void and_mask_tensor(int64_t j0, int n, uint64_t* words) const {
    const AttentionGrid& m = p_->mask;
    const uint8_t* base = static_cast<const uint8_t*>(m.data) + seq_->batch * m.sb + head_ * m.sh + q0_ * m.sq + j0 * m.skv;
    if (m.sq == 0) {
      for (int j = 0; j < n; j++) words[j] = base[j * m.skv] ? words[j] : 0;
      return;
    }
    uint64_t seen[kBlockKv] = {};
    for (int i = 0; i < nq_; i++)
      for (int j = 0; j < n; j++) seen[j] |= static_cast<uint64_t>(base[i * m.sq + j * m.skv] != 0) << i;
    for (int j = 0; j < n; j++) words[j] &= seen[j];
  }

  const AttentionParams* p_;
  const AttentionSequence* seq_;
  const int32_t* ranges_;
  int64_t head_, q0_, lo_, hi_, mask_row_, shared_lo_, shared_hi_;
  int nq_, mask_rows_;
  uint64_t lanes_;
  int32_t cursor_[kMaskRows], end_[kMaskRows];
};

}  // namespace
}  // namespace fovea::cpu
