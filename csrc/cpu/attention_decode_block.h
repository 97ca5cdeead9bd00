// What every body of decoding shares: the shape of a call, the rows of a block of keys, and how the scores of a block become weights.
#pragma once

#include "cpu/attention_decode_tile.h"
#include "cpu/attention_scores.h"
#include "cpu/attention_tile.h"

namespace fovea::cpu {
namespace {

constexpr int kBlockKeys = 32;  // keys visited at once

struct DecodeRows;

struct DecodeShape {
  const AttentionParams& p;
  int64_t group, rows;
  int64_t tile_rows;               // rows, filled up to whole register tiles
  int64_t key_pitch, value_pitch;  // floats of a packed query row, of an output row
  float factor, cap;               // of a dot product, to base-2 logits without a cap
  DecodeShape(const AttentionParams& params, int rows_of_tile) : p(params) {
    group = p.heads_q / p.heads_kv;
    rows = group * p.len_q;
    tile_rows = round_up(rows, rows_of_tile);
    key_pitch = round_up(p.dim, 2 * kLanes);
    value_pitch = round_up(p.dim_v, 2 * kLanes);
    cap = p.softcap;
    factor = cap > 0 ? p.scale / cap : p.scale * kLog2E;
  }
  // Of one (batch, key head, range): output rows, sums, maxima.
  int64_t partial_floats() const { return tile_rows * (value_pitch + 2); }
  // Rows whose sums and maxima are those of a partial result.
  DecodeRows rows_at(const QueryTile& place, float* scores, float* out, float* partial) const;
};

// Rows of up to kBlockKeys keys, how many there are, and the first rows behind them, which are to be prefetched. Behind the last of all
// come repetitions of it, so that loops may run in whole steps.
template <class T>
struct DecodeBlock {
  static constexpr int kFound = kBlockKeys + kAheadKeys;
  const T *key[kFound], *value[kFound];
  int64_t first;
  int count, padded;  // padded: whole vectors of scores
  uint64_t missing;   // keys without a row: they get the row of another, as a weight of 0 does not hide what is not finite

  // Keys [begin, end) of the place, as many as fit; begin < end. False: none of the block has a row.
  bool find(const AttentionParams& p, const QueryTile& at, int64_t begin, int64_t end) {
    const T *keys = static_cast<const T*>(p.k.data), *values = static_cast<const T*>(p.v.data);
    const int found = static_cast<int>(min64(kFound, end - begin));
    first = begin;
    count = found < kBlockKeys ? found : kBlockKeys;
    padded = static_cast<int>(round_up(count, kLanes));
    missing = 0;
    if (!p.page_table && !p.kv_rows) {
      keys += key_row(p, at, p.k, begin), values += key_row(p, at, p.v, begin);
      for (int j = 0; j < found; j++) key[j] = keys + j * p.k.sl, value[j] = values + j * p.v.sl;
    } else {
      for (int j = 0; j < found; j++) {
        const int64_t k = key_row(p, at, p.k, begin + j), v = key_row(p, at, p.v, begin + j);
        if (k < 0) missing |= uint64_t{1} << j;
        key[j] = keys + k;
        value[j] = values + v;
      }
      const int there = __builtin_ctzll(~missing);
      if (there >= count) return false;
      for (int j = 0; j < found; j++)
        if (missing >> j & 1) key[j] = key[there], value[j] = value[there];
    }
    for (int j = found; j < kFound; j++) key[j] = key[found - 1], value[j] = value[found - 1];
    return true;
  }
};

// The softmax of a place's rows over the blocks visited so far: scores of the block, sums, maxima, and outputs to rescale.
struct DecodeRows {
  const DecodeShape& s;
  const QueryTile& at;
  float *scores, *out, *sum, *maximum;  // scores and out: rows of kBlockKeys and value_pitch

  void clear() const {
    for (int64_t i = 0; i < s.tile_rows * s.value_pitch; i++) out[i] = 0;
    for (int r = 0; r < s.tile_rows; r++) sum[r] = 0, maximum[r] = kLowest;
  }

  // Scores of row r become weights, given to keep(first key of a vector, weights); what was accumulated is rescaled when the maximum
  // grows.
  template <class T, class Keep>
  FOVEA_INLINE void weigh(int r, const DecodeBlock<T>& b, Keep&& keep) const {
    float* row = scores + r * kBlockKeys;
    const int32_t begin = static_cast<int32_t>(max64(0, at.begin[r] - b.first)),
                  end = static_cast<int32_t>(max64(0, min64(b.count, at.end[r] - b.first)));
    const bool all = begin == 0 && end == b.padded;
    vf top = set1(-kInfinity);
    for (int j = 0; j < b.padded; j += kLanes) {
      vf v = load(row + j) * set1(s.factor);
      if (s.cap > 0) v = set1(s.cap * kLog2E) * tanh(v);
      if (!all) {
        const vi key = iota() + set1(j);
        v = select((key >= set1(begin)) & (key < set1(end)), v, set1(-kInfinity));
      }
      if (b.missing) v = select(expand_bits(reinterpret_cast<const uint8_t*>(&b.missing), j), set1(-kInfinity), v);
      store(row + j, v);
      top = max(v, top);
    }
    grow_maximum(r, across_lanes(top, [](vf x, vf y) { return max(x, y); }));
    vf total = zero();
    const vf m = set1(maximum[r]);
    for (int j = 0; j < b.padded; j += kLanes) {
      const vf e = exp2_weight<Words::F32>(load(row + j) - m, &kExp2);
      keep(j, e);
      total += e;
    }
    sum[r] += across_lanes(total, [](vf x, vf y) { return x + y; });
  }

  void grow_maximum(int r, float highest) const {
    const float old = maximum[r];
    if (!(highest > old)) return;
    const float factor = exp2(set1(old - highest))[0];
    maximum[r] = highest;
    sum[r] *= factor;
    float* row = out + r * s.value_pitch;
    for (int64_t d = 0; d < s.value_pitch; d += kLanes) store(row + d, load(row + d) * set1(factor));
  }
};

inline DecodeRows DecodeShape::rows_at(const QueryTile& place, float* scores, float* out, float* partial) const {
  float* sum = partial + tile_rows * value_pitch;
  return {*this, place, scores, out, sum, sum + tile_rows};
}

template <class T>
FOVEA_INLINE const T* query_of_row(const AttentionParams& p, const QueryTile& at, int r) {
  return static_cast<const T*>(p.q.data) + at.seq.batch * p.q.sb + at.head_of(r) * p.q.sh + at.query_of(r) * p.q.sl;
}

}  // namespace
}  // namespace fovea::cpu
