// The body of a key block on the tile unit: it makes the scores of the next keys, then adds the values, while vectors are weighed.
#pragma once

#include "cpu/attention_amx_tile.h"
#include "cpu/attention_block.h"
#include "cpu/attention_transfer.h"

namespace fovea::cpu {
namespace {

template <int NZ>
class TileBlock {
 public:
  using Block = ScoreBlock<Words::Bf16Tile, NZ>;

  // Rows of the block's keys and values as the tensors have them; those of keys go on to the end of the last tile.
  TileBlock(const Call& call, const Workspace& w, const Block& block, const float* const* key, const float* const* value)
      : c_(call), w_(w), b_(block), key_(key), value_(reinterpret_cast<const bf16* const*>(value)) {
    const int64_t first = b_.first / kTileDepth, end = ceil_div(b_.first + b_.count, kTileDepth);
    const bool keeps = b_.first % kTileDepth == 0 && end <= c_.kept_values;
    kept_ = keeps ? w_.kept + first : nullptr;
    turned_ = reinterpret_cast<bf16*>(w_.values) + (keeps ? kTileKeys + first * kTileDepth : 0) * c_.turned_dim();
  }

  // Stores the raw scores of kTileRows keys from key j. Rows that are no rows of neighbouring words at one distance from each other, down
  // to the last of the tile, are copied to be that.
  __attribute__((noinline)) void score(int j) const {
    const AttentionParams& p = c_.p;
    const void* rows = key_[j];
    int64_t row_bytes = p.k.sl * static_cast<int64_t>(sizeof(bf16));
    if (c_.sparse || p.k.sd != 1 || p.dim % kTileDepth || j + kTileRows > b_.count) {
      for (int i = 0; i < kTileRows; i++) {
        float* to = w_.keys + int64_t{i} * c_.words;
        copy_row<Words::Bf16Tile>(reinterpret_cast<const bf16*>(key_[j + i]), p.k.sd, p.dim, to);
        for (int64_t w = (p.dim + 1) / 2; w < c_.words; w++) to[w] = 0;
      }
      rows = w_.keys, row_bytes = int64_t{c_.words} * 4;
    }
    tile_scores<NZ>(rows, row_bytes, w_.queries, c_.words, b_.scores + static_cast<size_t>(j) * kRow);
  }

  // Turns the values of kTileDepth keys from key j, unless an earlier tile of queries left them.
  FOVEA_INLINE void turn(int j) const {
    const int count = b_.count - j < kTileDepth ? b_.count - j : kTileDepth;
    if (kept_) {
      TurnedKeys& kept = kept_[j / kTileDepth];
      if (kept.row == value_[j] && kept.count == count) return;
      kept = {value_[j], count};
    }
    turn(j, count);
  }

  // O^T += turned values x weights. Keys behind the last that share a tile with it get weights of 0.
  __attribute__((noinline)) void add_values() const {
    for (int pair = (b_.count + 1) / 2; pair % kTileWords; pair++) FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(b_.weights + pair * kRow + z * kLanes, zero());
    const int steps = (b_.count + kTileDepth - 1) / kTileDepth;
    tile_accumulate<NZ>(turned_, steps, c_.dim_v, kTileDepth * c_.turned_dim(), b_.weights, w_.out);
  }

  // The whole block. False: estimate(), called once the first scores exist, says so, or some lane outgrew its maximum; nothing was kept.
  template <bool kRange, bool kBits, Logit kLogit, class Estimate>
  __attribute__((noinline)) bool visit(Estimate&& estimate) const {
    const Block b = b_;
    score(0);
    if (!estimate()) return false;
    vf sum[NZ], highest[NZ], maximum[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      sum[z] = load(w_.sum + z * kLanes);
      highest[z] = set1(-kInfinity);
      maximum[z] = load(b.maximum + z * kLanes);
    }
    auto weight = [&](int j, int z) __attribute__((always_inline)) {
      const vf x = b.exponent(b.template logit<kRange, kBits, kLogit>(j, z), b.template unit<kLogit>(), maximum[z]);
      highest[z] = max(highest[z], x);
      const vf e = exp2_weight<Words::Bf16Tile>(x, exp2_constants());
      sum[z] += e;
      return e;
    };
    for (int j = 0; j < b.count; j += kTileRows) {
      if (j + kTileRows < b.count) score(j + kTileRows);
      const int end = j + kTileRows < b.count ? j + kTileRows : b.count;
      int i = j;
      for (; i + 2 <= end; i += 2) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) {
        const vf first = weight(i, z);
        store(b.weights + i / 2 * kRow + z * kLanes, pair_of(first, weight(i + 1, z)));
      }
      if (i < end) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) store(b.weights + i / 2 * kRow + z * kLanes, pair_of(weight(i, z), zero()));
      if (j % kTileDepth == 0) turn(j);
    }
    vi over{};
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) over |= highest[z] > set1(kSlack);
    if (any(over)) return false;
    add_values();
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(w_.sum + z * kLanes, sum[z]);
    return true;
  }

 private:
  static constexpr int kRow = Block::kRow;

  __attribute__((noinline)) void turn(int j, int count) const {
    turn_values(value_ + j, count, c_.p.v.sd, c_.dim_v, turned_ + j * c_.turned_dim());
  }

  const Call& c_;
  const Workspace& w_;
  const Block& b_;
  const float* const* key_;
  const bf16* const* value_;
  TurnedKeys* kept_;  // of the block, or null: its turned values are for this tile alone
  bf16* turned_;
};

}  // namespace
}  // namespace fovea::cpu
