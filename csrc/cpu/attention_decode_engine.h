// Decoding by vectors: one range of keys for all rows of a place.
//
// With so few rows, lanes run along the head dim instead of queries (attention_decode_tile.h): a register tile of kRows rows by kLanes /
// kRows keys holds kLanes dot products as vectors, summed across lanes all at once. Values are then added row by row, lanes along the head
// dim again.
#pragma once

#include "cpu/attention_decode_pass.h"

namespace fovea::cpu {
namespace {

template <class T, Words kWords, int kRows>
class Decoder {
  using C = Chunk<T, kWords>;
  using Block = DecodeBlock<T>;

 public:
  Decoder(const DecodeShape& shape, const QueryTile& place, float* scratch)
      : s_(shape), p_(shape.p), at_(place), queries_(scratch), scores_(scratch + shape.tile_rows * shape.key_pitch) {}

  static int64_t scratch_floats(const DecodeShape& s) { return s.tile_rows * (s.key_pitch + kBlockKeys); }

  // Keys [from, to) of the place for all its rows; out, sum and maximum are the partial result.
  void run(int64_t from, int64_t to, float* partial) {
    const DecodeRows rows = s_.rows_at(at_, scores_, partial, partial);
    rows.clear();
    from = max64(from, at_.kv_begin), to = min64(to, at_.kv_end);
    if (from >= to) return;
    pack();
    for (Block b; from < to; from += b.count) {
      if (!b.find(p_, at_, from, to)) continue;
      score(b);
      for (int r = 0; r < s_.rows; r++) {
        float* weights = scores_ + r * kBlockKeys;
        rows.weigh(
            r, b, [&](int j, vf e) __attribute__((always_inline)) {
              if constexpr (C::kPair) store(reinterpret_cast<bf16*>(weights) + j, e);
              else store(weights + j, e);
            });
      }
      for (int r0 = 0; r0 < s_.rows; r0 += kRows) add_block(b, r0, partial);
    }
  }

 private:
  void pack() {
    for (int r = 0; r < s_.tile_rows; r++) {
      float* to = queries_ + r * s_.key_pitch;
      for (int64_t d = 0; d < s_.key_pitch; d++) to[d] = 0;
      if (r >= s_.rows) continue;
      const T* from = query_of_row<T>(p_, at_, r);
      if constexpr (C::kPair) __builtin_memcpy(to, from, static_cast<size_t>(p_.dim) * 2);
      else
        for (int64_t d = 0; d < p_.dim; d++) to[C::place_in_row(d)] = to_float(from[d]);
    }
  }

  // Dot products of all rows with the keys of the block.
  void score(const Block& b) {
    const auto rows =
        p_.dim % C::kElements ? score_rows<T, kWords, kRows, kBlockKeys, true> : score_rows<T, kWords, kRows, kBlockKeys, false>;
    for (int r0 = 0; r0 < s_.rows; r0 += kRows)
      rows(b.key, b.padded, queries_ + r0 * s_.key_pitch, s_.key_pitch, p_.dim, scores_ + r0 * kBlockKeys);
  }

  // Adds the values of the block by their weights to kRows outputs.
  void add_block(const Block& b, int r0, float* outputs) {
    constexpr int kKeysOfStep = C::kPair ? 2 : 1;
    constexpr int kWide = kRegisters == 32 ? 16 / kRows : kRows == 4 ? 2 : 8 / kRows;
    const int steps = (b.count + kKeysOfStep - 1) / kKeysOfStep;
    const float* weights = scores_ + r0 * kBlockKeys;
    float* out = outputs + r0 * s_.value_pitch;
    int64_t d = 0;
    auto pass = [&](auto add, int64_t elements) {
      for (; d + elements <= p_.dim_v; d += elements) add(b.value, d, steps, weights, out + d, s_.value_pitch, elements);
    };
    if constexpr (kWide > C::kValueVectors) pass(add_values<T, kWords, kRows, kWide, kBlockKeys, false>, kWide * kLanes);
    pass(add_values<T, kWords, kRows, C::kValueVectors, kBlockKeys, false>, C::kElements);
    if (d < p_.dim_v)
      add_values<T, kWords, kRows, C::kValueVectors, kBlockKeys, true>(b.value, d, steps, weights, out + d, s_.value_pitch, p_.dim_v - d);
  }

  const DecodeShape& s_;
  const AttentionParams& p_;
  const QueryTile& at_;
  float *queries_, *scores_;
};

template <class T, Words kWords, int kRows>
void decode_by(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  decode<T, kWords, Decoder<T, kWords, kRows>>(DecodeShape(p, kRows), pool, cancel);
}

template <class T, Words kWords>
void decode_rows(const AttentionParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const int64_t rows = p.heads_q / p.heads_kv * p.len_q;
  if (rows == 1) decode_by<T, kWords, 1>(p, pool, cancel);
  else if (rows == 2) decode_by<T, kWords, 2>(p, pool, cancel);
  else decode_by<T, kWords, 4>(p, pool, cancel);
}

}  // namespace
}  // namespace fovea::cpu
