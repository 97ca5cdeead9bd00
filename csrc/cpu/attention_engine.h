// The loop every forward pass shares: one tile of queries visits key blocks, scores, exponentiates, accumulates values.
//
//   S^T = K rows x Q^T      P = 2^(S - m)      O^T += V rows x P
//
// Two bodies. In the usual one (no score program, or one that only adds to the score) a block is weighed in the shadow of its own products:
// the exponentials of one register tile run while the next one's scores are summed, those of the last while the first values are added;
// fetching, converting and pairing rows hide there too. That needs the maximum m before the scores exist, so m is an estimate: the largest
// of the first scores that the lane sees. Weights up to 2^kSlack are exact all the same; when a lane exceeds that, the block is redone by
// the other body, which stores logits, lifts the maximum of that lane to the true one and rescales its O. Lanes that have not outgrown
// theirs come out of both bodies with the same bits, and keys a lane does not see never reach its sums: a row's bits depend on what it sees
// alone.
// With Words::Bf16Tile the first body is that of attention_amx_block.h: the tile unit makes the products, and vectors weigh beside it.
#pragma once

#include <new>

#include "cpu/attention_amx_block.h"
#include "cpu/attention_block.h"
#include "cpu/attention_transfer.h"

namespace fovea::cpu {
namespace {

template <Words kWords, int NZ>
class Engine {
 public:
  // `next`: the tile this thread probably visits after this one.
  Engine(const Call& call, const QueryTile& tile, const QueryTile& next, const Workspace& w)
      : c_(call), p_(call.p), t_(tile), next_(next), w_(w) {}

  // Visits keys [from, to) of the tile and leaves O^T, sum and maximum in the workspace.
  void run(int64_t from, int64_t to) {
    alignas(ProgramVm) char place[sizeof(ProgramVm)];
    vm_ = c_.program() ? start_program(place) : nullptr;
    const bool from_terms = c_.by_distance() && !p_.mask.data && !c_.sparse;
    vi lost[NZ]{};
    do {
      if (from_terms) estimate_by_distance(from, to);
      for (int z = 0; z < NZ; z++)
        store(w_.maximum + z * kLanes, select(set1(from_terms ? -1 : 0) & ~lost[z], load(w_.maximum + z * kLanes), set1(kLowest)));
      vi some{};
      for (int z = 0; z < NZ; z++) some |= lost[z];
      estimated_ = from_terms && !any(some);
      visit(from, to);
    } while (from_terms && vanished(lost));
  }

 private:
  static constexpr bool kPairs = kWords != Words::F32, kTiled = kWords == Words::Bf16Tile;
  using Block = ScoreBlock<kWords, NZ>;
  static constexpr int kRow = Block::kRow;
  static constexpr float kVanished = 0x1p-64f;
  static constexpr int kRowsFetched = 4;  // at once; divides kTileQueries

  void visit(int64_t from, int64_t to) {
    for (int z = 0; z < NZ; z++) store(w_.sum + z * kLanes, zero());
    for (int64_t i = 0; i < round_up(c_.dim_v, kTiled ? kTileRows : 1) * NZ; i++) store(w_.out + i * kLanes, zero());
    KeyBlocks blocks(p_, t_, from, to);
    bool packed = false;
    for (KeyBlock b; blocks.next(b);) {
      if (!packed) with_elements<kWords>(p_.dtype, [&]<class T>(TypeTag<T>) { pack_queries<T, kWords>(c_, t_, w_); });
      packed = true;
      Block block;
      static_cast<KeyBlock&>(block) = b;
      if (!prepare(block)) continue;
      if (c_.score || !visit_in_shadow(block)) visit_in_memory(block);
    }
  }

  ProgramVm* start_program(char* place) const {
    ProgramVm* vm = new (place) ProgramVm(*c_.program(), kRow, w_.program);
    vm->begin_head(static_cast<int32_t>(t_.seq.index), static_cast<int32_t>(t_.head));
    vm->begin_queries(kRow, static_cast<int32_t>(t_.first + p_.q_offset));
    return vm;
  }

  // Rows, bias and masks of a block. False: no lane sees any of it.
  bool prepare(Block& b) {
    b.scores = w_.scores, b.weights = w_.weights, b.maximum = w_.maximum, b.begin = t_.begin, b.end = t_.end;
    b.to_log2 = c_.to_log2, b.cap = c_.cap, b.cap_rate = c_.cap_rate;
    b.added = nullptr, b.visible = nullptr;
    if (p_.mask.data) {
      if (!turn_mask(p_.mask, t_, b, w_.visible)) return false;
      b.visible = reinterpret_cast<const uint8_t*>(w_.visible);
    } else if (c_.sparse) {
      __builtin_memset(w_.visible, 0xff, sizeof(uint64_t) * kTileKeys);
    }
    const Found found = point_at(p_.k, b, key_);
    if (found == Found::None) return false;
    if (found == Found::Some) b.visible = reinterpret_cast<const uint8_t*>(w_.visible);
    point_at(p_.v, b, value_);
    b.extra = !c_.plain || b.visible || (b.bits && b.edge);
    if (p_.bias.data) {
      turn_bias(p_.bias, t_, b, w_.bias);
      b.added = w_.bias, b.added_step = kRow;
    }
    if (c_.addend) add_program(b);
    if (c_.copy_keys) copy_rows<kWords>(p_.dtype, key_, b.count, p_.k.sd, p_.dim, w_.keys, c_.words);
    if (!kPairs && c_.copy_values) copy_rows<kWords>(p_.dtype, value_, b.count, p_.v.sd, p_.dim_v, w_.values, c_.dim_v);
    for (int j = b.count; j < b.count + 2 * kRowsOfTile; j++) key_[j] = key_[b.count - 1];
    return true;
  }

  enum class Found { None, Some, All };

  // Addresses of the rows of a block's keys in k or v, as words, and which of them were found. A key that has no row gets that of another,
  // as a weight of 0 does not hide what is not finite; its word of visible lanes is 0 now.
  FOVEA_INLINE Found point_at(const AttentionTensor& tensor, const KeyBlock& b, const float** row) const {
    const char* base = static_cast<const char*>(tensor.data);
    const int64_t step = tensor.sl * c_.element_bytes;
    if (!c_.sparse) {
      const char* first = base + key_row(p_, t_, tensor, b.first) * c_.element_bytes;
      for (int j = 0; j < b.count; j++) row[j] = reinterpret_cast<const float*>(first + j * step);
      return Found::All;
    }
    if (p_.kv_rows) {
      const int32_t* list = p_.kv_rows + t_.seq.batch * p_.kv_rows_sb + t_.kv_head * p_.kv_rows_sh + t_.seq.kv_first + b.first;
      int32_t signs = 0;
      for (int j = 0; j < b.count; j++) signs |= list[j];
      if (signs >= 0) {
        const char* first = base + (t_.seq.batch * tensor.sb + t_.kv_head * tensor.sh) * c_.element_bytes;
        for (int j = 0; j < b.count; j++) row[j] = reinterpret_cast<const float*>(first + list[j] * step);
        return Found::All;
      }
    }
    bool missing = false;
    const float* there = nullptr;
    for (int j = 0; j < b.count; j++) {
      int64_t offset = key_row(p_, t_, tensor, b.first + j);
      if (offset < 0) missing = true, w_.visible[j] = 0, row[j] = nullptr;
      else there = row[j] = reinterpret_cast<const float*>(base + offset * c_.element_bytes);
    }
    if (!missing) return Found::All;
    if (!there) return Found::None;
    for (int j = 0; j < b.count; j++)
      if (!row[j]) row[j] = there;
    return Found::Some;
  }

  // What the program adds to the scores of the block, in units of log2.
  void add_program(Block& b) {
    if (c_.by_distance()) {
      b.added = terms_by_distance(b.first, b.count), b.added_step = -1;
      return;
    }
    vm_->score(b.count, static_cast<int32_t>(b.first + p_.kv_offset), b.scores, kRow);
    for (int i = 0; i < b.count * NZ; i++) {
      const vf v = load(b.scores + i * kLanes) * set1(kLog2E);
      store(w_.bias + i * kLanes, b.added ? v + load(w_.bias + i * kLanes) : v);
    }
    b.added = w_.bias, b.added_step = kRow;
  }

  // The terms of lanes at key `first`; those of the next keys begin one float earlier each. A row of the program's lanes is evaluated for
  // every kRow-th key, which together are all distances of many keys.
  const float* terms_by_distance(int64_t first, int count) {
    if (first < distance_first_ || first + count > distance_end_) {
      distance_first_ = first;
      distance_end_ = min64(first + (kDistanceRows - 1) * kRow, max64(first + count, t_.kv_end));
      const int rows = static_cast<int>(ceil_div(distance_end_ - first + kRow - 1, kRow));
      int32_t key[kDistanceRows];
      for (int r = 0; r < rows; r++) key[r] = static_cast<int32_t>(distance_end_ - 1 - r * kRow + p_.kv_offset);
      vm_->score(rows, key, w_.bias, kRow);
      for (int i = 0; i < rows * NZ; i++) store(w_.bias + i * kLanes, load(w_.bias + i * kLanes) * set1(kLog2E));
    }
    return w_.bias + (distance_end_ - 1 - first);
  }

  // Maxima before any score is known: the largest term among the keys of each lane, which softmax is sharpest about. Scores may be
  // anything, so lanes that exceed this by far are lifted as ever, and where all of a lane's weights vanish, the tile is visited again
  // without.
  void estimate_by_distance(int64_t from, int64_t to) {
    distance_first_ = distance_end_ = 0;
    KeyBlocks blocks(p_, t_, from, to);
    vf highest[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) highest[z] = set1(-kInfinity);
    for (KeyBlock b; blocks.next(b);) {
      const float* term = terms_by_distance(b.first, b.count);
      for (int j = 0; j < b.count; j++, term--) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) {
        vf v = load(term + z * kLanes);
        if (b.edge) {
          const vi first = load(t_.begin + z * kLanes);
          v = mask_range(v, first, load(t_.end + z * kLanes) - first, static_cast<int32_t>(b.first) + j);
        }
        if (b.bits) v = mask_bits(v, b.bits + j * b.bits_pitch, b.bits_shift + z * kLanes);
        highest[z] = max(v, highest[z]);
      }
    }
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(w_.maximum + z * kLanes, select(highest[z] < set1(kLowest), set1(-kLowest), highest[z]));
  }

  // Adds lanes that see keys, but of whose weights hardly anything is left, to `lost`; true if there were any. Lanes that see no key have
  // no maximum from here on.
  bool vanished(vi (&lost)[NZ]) const {
    vi found{};
    for (int z = 0; z < NZ; z++) {
      const vf m = load(w_.maximum + z * kLanes);
      const vi none = m == set1(-kLowest), now = (load(w_.sum + z * kLanes) < set1(kVanished)) & ~none & ~lost[z];
      store(w_.maximum + z * kLanes, select(none, set1(kLowest), m));
      lost[z] |= now;
      found |= now;
    }
    return any(found);
  }

  // Makes the value row of key j of the block ready: fetched, or the pair of neighbouring keys for the dot instruction.
  FOVEA_INLINE void prepare_value(int j, int count) {
    if (j >= count) return;
    if constexpr (kPairs) {
      const bool last = j == count - 1;
      if (j % 2 == 0 && !last) return __builtin_prefetch(value_[j]), __builtin_prefetch(value_[j + 1]);
      auto row = [&](int i) { return reinterpret_cast<const bf16*>(value_[i]); };
      float* to = w_.values + int64_t{j / 2} * c_.dim_v;
      pair_rows(row(j & ~1), j % 2 ? row(j) : nullptr, p_.v.sd, c_.dim_v, to);
      pair_[j / 2] = to;
    } else {
      fetch(value_[j], c_.dim_v);
    }
  }

  FOVEA_INLINE static void fetch(const float* row, int words) {
    for (int i = 0; i < words; i += 16) __builtin_prefetch(row + i);
  }

  // Fetches a few of the rows that this tile ends with and the next one begins with: they are far, and products take long.
  __attribute__((noinline)) void fetch_rows() {
    auto fetch_row = [&](const AttentionTensor& tensor, int64_t offset, int64_t elements) {
      if (offset < 0) return;
      const char* row = static_cast<const char*>(tensor.data) + offset * c_.element_bytes;
      for (int64_t i = 0; i < elements * c_.element_bytes; i += 64) __builtin_prefetch(row + i);
    };
    for (const int end = fetched_rows_ + kRowsFetched; fetched_rows_ < end; fetched_rows_++) {
      fetch_row(p_.out, lane_result(p_, t_, fetched_rows_), p_.dim_v);
      fetch_row(p_.q, lane_row(p_, next_, fetched_rows_), p_.dim);
    }
  }

  FOVEA_INLINE TileBlock<NZ> tiles(const ScoreBlock<Words::Bf16Tile, NZ>& b) const { return {c_, w_, b, key_, value_}; }

  // Stores the raw scores of kRowsOfTile keys from key j of the block.
  template <class Shadow>
  FOVEA_INLINE void score_rows(int j, float* scores, Shadow&& shadow) {
    vf acc[kRowsOfTile][NZ];
    score_tile<NZ, kWords>(key_ + j, w_.queries, c_.words, acc, shadow);
    scores += static_cast<size_t>(j) * kRow;
    FOVEA_UNROLL
    for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(scores + i * kRow + z * kLanes, acc[i][z]);
  }

  // Stored products become what a program makes of them.
  void apply_program(const Block& b) {
    if (c_.score_scale != 1 || p_.softcap > 0)
      for (int i = 0; i < b.count * NZ; i++) {
        vf v = load(b.scores + i * kLanes) * set1(c_.score_scale);
        if (p_.softcap > 0) v = set1(p_.softcap) * tanh(v / set1(p_.softcap));
        store(b.scores + i * kLanes, v);
      }
    vm_->score(b.count, static_cast<int32_t>(b.first + p_.kv_offset), b.scores, kRow);
  }

  // Stores the weights of key j where the values' product wants them; pairs are made when their second key comes, or none does.
  template <class Weight>
  FOVEA_INLINE static void weigh_key(const Block& b, int j, Weight&& weight) {
    float* at = b.scores + static_cast<size_t>(j) * kRow;
    float* pair = b.weights + static_cast<size_t>(j / 2) * kRow;
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      vf e = weight(j, z);
      if (!kPairs || j % 2 == 0) store(at + z * kLanes, e);
      else store(pair + z * kLanes, pair_of(load(at - kRow + z * kLanes), e));
      if (kPairs && j % 2 == 0 && j == b.count - 1) store(pair + z * kLanes, pair_of(e, zero()));
    }
  }

  bool visit_in_shadow(const Block& b) {
    if (b.extra && c_.added && b.added && !b.visible && !b.bits && !b.edge) return visit_in_shadow<false, false, Logit::Added>(b);
    if (b.extra) return visit_in_shadow<true, true, Logit::Any>(b);
    if (b.bits) return visit_in_shadow<false, true, Logit::Plain>(b);
    return b.edge ? visit_in_shadow<true, false, Logit::Plain>(b) : visit_in_shadow<false, false, Logit::Plain>(b);
  }

  // A whole block. False: some lane outgrew its maximum, and nothing was kept.
  template <bool kRange, bool kBits, Logit kLogit>
  __attribute__((noinline)) bool visit_in_shadow(const Block& block) {
    auto estimated = [&] { return estimated_ || estimate_maximum<kRange, kBits, kLogit>(block); };
    if constexpr (kTiled) return tiles(block).template visit<kRange, kBits, kLogit>(estimated);
    const Block b = block;
    const int count = b.count;
    alignas(64) float sum[kRow], highest[kRow];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      store(sum + z * kLanes, load(w_.sum + z * kLanes));
      store(highest + z * kLanes, set1(-kInfinity));
    }
    auto weight = [&](int j, int z) __attribute__((always_inline)) {
      vf s = b.template logit<kRange, kBits, kLogit>(j, z), m = load(b.maximum + z * kLanes);
      vf x = b.exponent(s, b.template unit<kLogit>(), m);
      store(highest + z * kLanes, max(load(highest + z * kLanes), x));
      vf e = exp2_weight<kWords>(x, exp2_constants());
      store(sum + z * kLanes, load(sum + z * kLanes) + e);
      return e;
    };
    for (int j = 0; j < count; j += kRowsOfTile) {
      if (fetched_rows_ < kTileQueries) fetch_rows();
      score_rows(
          j, b.scores, [&](int i) __attribute__((always_inline)) {
            fetch(key_[j + kRowsOfTile + i], c_.words);
            prepare_value(j + i, count);
            if (j > 0) weigh_key(b, j - kRowsOfTile + i, weight);
          });
      if (j == 0 && !estimated()) return false;
    }
    auto finish_key = [&](int j) __attribute__((always_inline)) {
      weigh_key(b, j, weight);
      if (kPairs && j + 1 < count) weigh_key(b, j + 1, weight);
    };
    auto fits = [&]() __attribute__((always_inline)) {
      vi over{};
      FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) over |= load(highest + z * kLanes) > set1(kSlack);
      return !any(over);
    };
    if (!add_values(b, (count - 1) / kRowsOfTile * kRowsOfTile, finish_key, fits)) return false;
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(w_.sum + z * kLanes, load(sum + z * kLanes));
    return true;
  }

  // O^T += V rows x P, while finish_key(j) makes the weights of keys `done` and on; nothing is stored unless fits() then.
  template <class FinishKey, class Fits>
  FOVEA_INLINE bool add_values(const Block& b, int done, FinishKey&& finish_key, Fits&& fits) {
    constexpr int kPerRow = kPairs ? 2 : 1;
    const float* weights = kPairs ? b.weights : b.scores;
    const float* const* values = kPairs ? pair_ : value_;
    const int rows = (b.count + kPerRow - 1) / kPerRow;
    if (c_.dim_v < kRowsOfTile) {
      for (int j = done; j < b.count; j += kPerRow) finish_key(j);
      if (!fits()) return false;
      accumulate_values<NZ, kWords>(values, rows, 0, c_.dim_v, weights, w_.out);
      return true;
    }
    auto shadow = [&](int row) __attribute__((always_inline)) { finish_key(row * kPerRow); };
    if (!value_tile_over<kRowsOfTile, NZ, kWords>(values, done / kPerRow, rows, weights, w_.out, shadow, fits)) return false;
    accumulate_values<NZ, kWords>(values, rows, kRowsOfTile, c_.dim_v, weights, w_.out);
    return true;
  }

  // Lanes without a maximum get the largest of the block's first logits that they see. False: some lane sees none of these, but may see
  // later ones, so the true maximum is wanted.
  template <bool kRange, bool kBits, Logit kLogit>
  bool estimate_maximum(const Block& b) {
    const int rows = b.count < kRowsOfTile ? b.count : kRowsOfTile;
    vi unknown{}, missing{};
    for (int z = 0; z < NZ; z++) {
      vf m = set1(kLowest), old = load(w_.maximum + z * kLanes);
      for (int j = 0; j < rows; j++) m = max(b.template logit<kRange, kBits, kLogit>(j, z) * set1(b.template unit<kLogit>()), m);
      m = select(old == set1(kLowest), m, old);
      store(w_.maximum + z * kLanes, m);
      vi lacks = m == set1(kLowest), first = load(b.begin + z * kLanes), last = load(b.end + z * kLanes);
      unknown |= lacks;
      missing |= lacks & (first < set1(static_cast<int32_t>(b.first) + b.count)) & (last > set1(static_cast<int32_t>(b.first)));
    }
    estimated_ = !any(unknown);
    return !any(missing);
  }

  // Any block: logits in memory, true maximum, weights, values.
  __attribute__((noinline)) void visit_in_memory(const Block& block) {
    Block b = block;
    // As in the other body: pairs stay raw until their exponent is formed, so that a lane has the same bits here and there.
    const float unit = kPairs && !b.extra ? b.to_log2 : 1.f;
    if (kPairs && !b.extra) b.to_log2 = 1;
    if constexpr (kTiled) {
      for (int j = 0; j < b.count; j += kTileRows) tiles(b).score(j);
      for (int j = 0; j < b.count; j += kTileDepth) tiles(b).turn(j);
    } else {
      for (int j = 0; j < b.count; j += kRowsOfTile) score_rows(j, b.scores, [](int) {});
    }
    if (c_.score) apply_program(b);
    vf highest[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) highest[z] = set1(-kInfinity);
    for (int j = 0; j < b.count; j++) {
      if constexpr (kWords == Words::Bf16Pair) prepare_value(j, b.count);
      FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) {
        vf s = b.template logit<true, true, Logit::Any>(j, z);
        highest[z] = max(highest[z], s);
        store(b.scores + static_cast<size_t>(j) * kRow + z * kLanes, s);
      }
    }
    grow(highest, unit);
    alignas(64) float sum[kRow];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(sum + z * kLanes, load(w_.sum + z * kLanes));
    auto weight = [&](int j, int z) {
      vf s = load(b.scores + static_cast<size_t>(j) * kRow + z * kLanes);
      vf e = exp2_weight<kWords>(b.exponent(s, unit, load(b.maximum + z * kLanes)), exp2_constants());
      store(sum + z * kLanes, load(sum + z * kLanes) + e);
      return e;
    };
    for (int j = 0; j < b.count; j++) weigh_key(b, j, weight);
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(w_.sum + z * kLanes, load(sum + z * kLanes));
    if constexpr (kTiled) return tiles(b).add_values();
    add_values(
        b, b.count, [](int) {}, [] { return true; });
  }

  // Lifts the running maximum of lanes that have outgrown it, and rescales what they accumulated under the old one.
  void grow(const vf (&highest)[NZ], float unit) {
    vi over[NZ], some{};
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      over[z] = Block::exponent(highest[z], unit, load(w_.maximum + z * kLanes)) > set1(kSlack);
      some |= over[z];
    }
    if (!any(some)) return;
    vf factor[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      vf old = load(w_.maximum + z * kLanes), now = select(over[z], highest[z] * set1(unit), old);
      factor[z] = exp2(old - now);
      store(w_.maximum + z * kLanes, now);
      store(w_.sum + z * kLanes, load(w_.sum + z * kLanes) * factor[z]);
    }
    for (int d = 0; d < c_.dim_v; d++) FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      float* at = w_.out + (d * NZ + z) * kLanes;
      store(at, load(at) * factor[z]);
    }
  }

  const Call& c_;
  const AttentionParams& p_;
  const QueryTile &t_, &next_;
  const Workspace& w_;
  ProgramVm* vm_ = nullptr;
  int fetched_rows_ = 0;
  bool estimated_ = false;                         // the maxima hold something
  int64_t distance_first_ = 0, distance_end_ = 0;  // keys whose terms by distance are at hand
  const float* key_[kTileKeys + 2 * kRowsOfTile];  // rows of the block's keys, whole register tiles of them and one more to fetch
  const float* value_[kTileKeys];                  // rows of its values
  const float* pair_[kPairs ? kTileKeys / 2 : 1];  // and of pairs of them
};

// Calls f with the number of vectors of a tile as a constant.
template <class F>
FOVEA_INLINE void dispatch_vectors(int vectors, F&& f) {
  if (vectors == 1) f.template operator()<1>();
  else if (vectors == 2) f.template operator()<2>();
  else f.template operator()<3>();
}

}  // namespace
}  // namespace fovea::cpu
