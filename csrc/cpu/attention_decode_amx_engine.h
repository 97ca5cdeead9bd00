// Decoding of bf16 on the tile unit (amx.h): one range of keys for all rows of a place. Rows of keys and of values are operands as they lie
// in memory.
//
//   S^T[key][row] = K x Q^T        A: 16 keys by 32 elements, B: packed queries, as in the forward pass
//   O[row][d] += W x V             A: weights, B: 16 keys by 32 elements
//
// A product sums over pairs of depth that are neighbours in B, and neighbours in a row of V are not two keys but two elements. The
// non-obvious choice: every row has two rows of weights, (w, 0) for its even elements and (0, w) for its odd ones, so that half of the
// products are by zero and nothing is transposed. Zero times an infinite element would reach the neighbour's sum: a range whose outputs are
// not finite is visited again by vectors.
#pragma once

#include "cpu/amx.h"
#include "cpu/attention_decode_engine.h"
#include "cpu/pieces.h"

namespace fovea::cpu {
namespace {

#if defined(__AVX512BW__)

class TileDecoder {
  using Block = DecodeBlock<bf16>;
  using Exact = Decoder<bf16, Words::F32, 4>;
  static constexpr int kWide = 4;  // tiles of outputs that are summed at once

 public:
  static constexpr int kRows = 4;  // what rows of a partial result are filled up to

  TileDecoder(const DecodeShape& shape, const QueryTile& place, float* scratch) : s_(shape), p_(shape.p), at_(place), scratch_(scratch) {
    cut(scratch);
  }

  static int64_t scratch_floats(const DecodeShape& s) {
    return max64(TileDecoder(s, QueryTile{}, nullptr).cut(nullptr), Exact::scratch_floats(s));
  }

  // As Decoder::run, with the same layout of the partial result.
  void run(int64_t from, int64_t to, float* partial) {
    if (!visit(from, to, partial)) Exact(s_, at_, scratch_).run(from, to, partial);
  }

 private:
  // Buffers from `base`, if it is not null; the floats they take.
  int64_t cut(float* base) {
    Pieces pieces(base);
    queries_ = pieces.take(p_.dim / 2 * kLanes);
    products_ = pieces.take(kTileRows * kLanes);
    scores_ = pieces.take(s_.rows * kBlockKeys);
    weights_ = pieces.take(2 * s_.rows * kBlockKeys);
    out_ = pieces.take(s_.tile_rows * s_.value_pitch);
    copies_ = pieces.take<bf16>(kTileRows * max64(p_.dim, p_.dim_v));
    return pieces.bytes() / 4;
  }

  // False: some output is not finite.
  bool visit(int64_t from, int64_t to, float* partial) {
    const DecodeRows rows = s_.rows_at(at_, scores_, out_, partial);
    rows.clear();
    from = max64(from, at_.kv_begin), to = min64(to, at_.kv_end);
    if (from >= to) return hand_over(partial);
    const TileUnit unit(static_cast<int>(2 * s_.rows), kRegistersOfRows);
    pack();
    for (Block b; from < to; from += b.count) {
      if (!b.find(p_, at_, from, to)) continue;
      for (int j = 0; j < b.padded; j += kTileRows) score(b, j);
      for (int r = 0; r < s_.rows; r++) {
        float* even = weights_ + 2 * r * kBlockKeys;
        rows.weigh(
            r, b, [&](int j, vf e) __attribute__((always_inline)) {
              const vu rounded = reinterpret_cast<vu>(e) + 0x8000u;  // weights are not negative
              store(even + j, reinterpret_cast<vf>(rounded >> 16));
              store(even + kBlockKeys + j, reinterpret_cast<vf>(rounded & 0xffff0000u));
            });
      }
      for (int64_t d = 0; d < p_.dim_v; d += kWide * kTileDepth) {
        const int64_t tiles = min64(kWide, (p_.dim_v - d) / kTileDepth);
        if (tiles == 1) add<1>(b, d);
        else if (tiles == 2) add<2>(b, d);
        else if (tiles == 3) add<3>(b, d);
        else add<4>(b, d);
      }
    }
    return hand_over(partial);
  }

  // Register 0 is for scores, 3 for queries, 6 for keys and values, 7 for weights, the others for outputs.
  static constexpr unsigned kRegistersOfRows = 0b10110110;
  template <int i>
  static constexpr int output = i + 1 + (i > 1);

  // Words of 16 rows side by side.
  void pack() {
    uint32_t* to = reinterpret_cast<uint32_t*>(queries_);
    __builtin_memset(to, 0, static_cast<size_t>(p_.dim / 2 * kLanes) * 4);
    for (int r = 0; r < s_.rows; r++) {
      const bf16* from = query_of_row<bf16>(p_, at_, r);
      for (int64_t w = 0; w < p_.dim / 2; w++) __builtin_memcpy(to + w * kLanes + r, from + 2 * w, 4);
    }
  }

  // What the same operand will be kAheadKeys keys on, into the L1 cache: from there tiles are loaded faster than from the L2.
  FOVEA_INLINE static void fetch(const bf16* const* row, int64_t d) {
    FOVEA_UNROLL
    for (int i = 0; i < kTileRows; i++) __builtin_prefetch(row[i] + d);
  }

  // Elements [d, d + count) of kTileRows rows as an operand: where they lie if that is at one distance from each other, else copied.
  FOVEA_INLINE const bf16* operand(const bf16* const* row, int64_t d, int64_t count, int64_t* row_bytes) {
    const int64_t step = row[1] - row[0];
    bool even = true;
    for (int i = 2; i < kTileRows; i++) even &= row[i] - row[0] == i * step;
    *row_bytes = 2 * step;
    if (even) return row[0] + d;
    for (int i = 0; i < kTileRows; i++) __builtin_memcpy(copies_ + i * count, row[i] + d, static_cast<size_t>(count) * 2);
    *row_bytes = 2 * count;
    return copies_;
  }

  // Dot products of all rows with kTileRows keys from key j.
  FOVEA_INLINE void score(const Block& b, int j) {
    int64_t row_bytes;
    const bf16* keys = operand(b.key + j, 0, p_.dim, &row_bytes);
    tile_zero<0>();
    for (int64_t d = 0; d < p_.dim; d += kTileDepth) {
      fetch(b.key + j + kAheadKeys, d);
      tile_load<6>(keys + d, row_bytes);
      tile_load<3>(queries_ + d / 2 * kLanes, kVectorBytes);
      tile_multiply<0, 6, 3>();
    }
    tile_store<0>(products_, kVectorBytes);
    vf v[kLanes];
    FOVEA_UNROLL
    for (int i = 0; i < kLanes; i++) v[i] = load(products_ + i * kLanes);
    transpose(v);
    FOVEA_UNROLL
    for (int r = 0; r < kDecodeRows; r++)
      if (r < s_.rows) store(scores_ + r * kBlockKeys + j, v[r]);
  }

  // Adds elements of the block's values from d, `tiles` tiles of 32, to the outputs, whose even elements come before the odd ones.
  template <int tiles>
  void add(const Block& b, int64_t d) {
    float* const at = out_ + d / 2;
    const int64_t half_row = s_.value_pitch / 2 * 4;
    each_tile<tiles>([&]<int i>() { tile_load<output<i>>(at + i * kLanes, half_row); });
    for (int j = 0; j < b.padded; j += kTileRows) {
      int64_t row_bytes;
      const bf16* values = operand(b.value + j, d, tiles * kTileDepth, &row_bytes);
      tile_load<7>(weights_ + j, kBlockKeys * 4);
      each_tile<tiles>([&]<int i>() {
        fetch(b.value + j + kAheadKeys, d + i * kTileDepth);
        tile_load<6>(values + i * kTileDepth, row_bytes);
        tile_multiply<output<i>, 7, 6>();
      });
    }
    each_tile<tiles>([&]<int i>() { tile_store<output<i>>(at + i * kLanes, half_row); });
  }

  // Outputs in the layout of a partial result. False: some are not finite.
  bool hand_over(float* partial) const {
    vf nothing = zero();
    const int64_t half = s_.value_pitch / 2;
    for (int64_t r = 0; r < s_.tile_rows; r++)
      for (int64_t d = 0; d < half; d += kLanes) {
        const float* from = out_ + r * s_.value_pitch + d;
        float* to = partial + r * s_.value_pitch + 2 * d;
        const vf even = load(from), odd = load(from + half);
        store(to, even), store(to + kLanes, odd);
        nothing += even * zero() + odd * zero();
      }
    return !any(nothing != zero());
  }

  const DecodeShape& s_;
  const AttentionParams& p_;
  const QueryTile& at_;
  float *scratch_, *queries_, *products_, *scores_, *weights_, *out_;
  bf16* copies_;
};

#else

class TileDecoder;

#endif

}  // namespace
}  // namespace fovea::cpu
