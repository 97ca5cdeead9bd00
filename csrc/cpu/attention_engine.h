// The loop every forward pass shares: one tile of queries visits key blocks, scores, exponentiates, accumulates values.
//
//   S^T = K rows x Q^T      P = 2^(S - m)      O^T += V rows x P
//
// Two bodies. A full block of a plain call is finished in registers: scores become weights before they are ever stored. That needs the
// maximum m before the scores exist, so m is the maximum of earlier blocks and may be stale: weights up to 2^kSlack are exact all the same,
// and only when a lane exceeds that is the block redone by the other body, which stores scores, applies what the call asks for, takes
// the true maximum and rescales O. In practice that happens in the first block of a tile only, so O is hardly ever rescaled.
// Whether it happens depends on the tile's own data, never on threads or batch.
#pragma once

#include "core/thread_pool.h"
#include "cpu/attention_scores.h"

namespace fovea::cpu {
namespace {

constexpr float kSlack = 24;  // log2; sums stay far below the largest float

// What all tiles of a call share.
struct Call {
  const AttentionParams& p;
  bool plain;         // scores need nothing but the scale
  int words, dim_v;   // 32-bit words of a query or key row
  float query_scale;  // folded into the packed queries
  float score_scale;  // applied to stored scores before anything else (1 where folded)
  float to_log2;      // applied last
  bool copy_keys, copy_values;

  Call(const AttentionParams& params, Words kind, bool narrow) : p(params) {
    plain = p.softcap <= 0 && !p.bias.data && !p.mask.data && !p.score;
    bool pairs = kind == Words::Bf16Pair;
    words = static_cast<int>(pairs ? (p.dim + 1) / 2 : p.dim);
    dim_v = static_cast<int>(p.dim_v);
    // bf16 queries stay as they are, so the dot instruction sees exact inputs and the scale is applied to f32 scores.
    query_scale = pairs ? 1.f : plain ? p.scale * kLog2E : p.scale;
    score_scale = pairs && !plain ? p.scale : 1.f;
    to_log2 = !plain ? kLog2E : pairs ? p.scale * kLog2E : 1.f;
    copy_keys = p.k.sd != 1 || (narrow && !pairs) || (pairs && p.dim % 2);
    copy_values = p.v.sd != 1 || narrow;
  }
};

// Buffers of one thread, cut from its scratch memory.
struct Workspace {
  float *queries, *scores, *weights, *out, *maximum, *sum, *keys, *values, *rows;

  static int64_t padded(int64_t n) { return round_up(n, 16); }
  static int64_t floats(const Call& c) { return Workspace{}.cut(c, nullptr); }

  int64_t cut(const Call& c, float* base) {
    int64_t at = 0;
    auto take = [&](int64_t n) {
      int64_t here = at;
      at += padded(n);
      return base ? base + here : nullptr;
    };
    const int64_t wide = round_up(c.words > c.dim_v ? c.words : c.dim_v, kLanes);
    queries = take(int64_t{c.words} * kTileQueries);
    scores = take(int64_t{kBlockKeys + kRowsOfTile} * kTileQueries);
    weights = take(int64_t{kBlockKeys / 2 + kRowsOfTile} * kTileQueries);
    out = take(round_up(c.dim_v, kLanes) * kTileQueries);
    maximum = take(kTileQueries);
    sum = take(kTileQueries);
    keys = take(c.copy_keys ? int64_t{kBlockKeys} * c.words : 0);
    values = take(c.copy_values ? int64_t{kBlockKeys} * c.dim_v : 0);
    rows = take(wide * kLanes);
    return at;
  }
};

// Row `from` with element stride `step` as 32-bit words; an odd bf16 row ends with a zero.
template <Words kWords, class T>
FOVEA_INLINE void copy_row(const T* from, int64_t step, int64_t dim, float* to) {
  if constexpr (kWords == Words::Bf16Pair) {
    uint16_t* half = reinterpret_cast<uint16_t*>(to);
    if (step == 1) __builtin_memcpy(half, from, static_cast<size_t>(dim) * 2);
    else
      for (int64_t d = 0; d < dim; d++) half[d] = from[d * step].bits;
    if (dim % 2) half[dim] = 0;
  } else {
    int64_t d = 0;
    if (step == 1)
      for (; d + kLanes <= dim; d += kLanes) store(to + d, load(from + d));
    for (; d < dim; d++) to[d] = to_float(from[d * step]);
  }
}

template <class T, Words kWords, int NZ>
class Engine {
 public:
  Engine(const Call& call, const QueryTile& tile, const Workspace& w) : c_(call), p_(call.p), t_(tile), w_(w) {}

  // Visits keys [from, to) of the tile and leaves O^T, sum and maximum in the workspace.
  void run(int64_t from, int64_t to) {
    for (int z = 0; z < NZ; z++) {
      store(w_.maximum + z * kLanes, set1(kLowest));
      store(w_.sum + z * kLanes, zero());
    }
    for (int64_t i = 0; i < int64_t{c_.dim_v} * NZ; i++) store(w_.out + i * kLanes, zero());
    bool packed = false, settled = false;
    KeyBlocks blocks(p_, t_, from, to);
    for (KeyBlock b; blocks.next(b);) {
      if (!packed) pack_queries();
      packed = true;
      uint64_t missing = point_at_keys(b);
      bool full = settled && c_.plain && !b.edge && !b.bits && !missing && b.count % kRowsOfTile == 0;
      if (!full || !weigh_in_registers(b)) weigh_in_memory(b, missing);
      settled = true;
      add_values(b);
    }
  }

 private:
  const float* row_words(const T* p) const { return reinterpret_cast<const float*>(p); }

  // Q^T, kLanes queries by kLanes words at a time.
  void pack_queries() {
    const int64_t pitch = round_up(c_.words, kLanes);
    for (int z = 0; z < NZ; z++) {
      for (int i = 0; i < kLanes; i++) {
        int lane = z * kLanes + i;
        float* to = w_.rows + i * pitch;
        int64_t row = lane < t_.lanes ? query_row(p_, t_.seq, t_.head, t_.query_of(lane)) : -1;
        if (row < 0) {
          for (int64_t d = 0; d < pitch; d += kLanes) store(to + d, zero());
          continue;
        }
        const T* from = static_cast<const T*>(p_.q.data) + t_.seq.batch * p_.q.sb + t_.head_of(lane) * p_.q.sh + row * p_.q.sl;
        copy_row<kWords>(from, p_.q.sd, p_.dim, to);
      }
      for (int64_t d0 = 0; d0 < c_.words; d0 += kLanes) {
        vf v[kLanes];
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) v[i] = load(w_.rows + i * pitch + d0);
        transpose(v);
        int n = c_.words - d0 < kLanes ? static_cast<int>(c_.words - d0) : kLanes;
        for (int i = 0; i < n; i++) {
          if constexpr (kWords == Words::F32) v[i] = v[i] * set1(c_.query_scale);
          store(w_.queries + ((d0 + i) * NZ + z) * kLanes, v[i]);
        }
      }
    }
  }

  // Row pointers of a block's keys; bit j of the result is set where key j has no row. Whole register tiles are pointed at.
  uint64_t point_at_keys(const KeyBlock& b) {
    uint64_t missing = 0;
    const T* base = static_cast<const T*>(p_.k.data);
    bool affine = !p_.page_table && !p_.kv_rows;
    const T* first = base + key_row(p_, t_, p_.k, affine ? b.first : 0);
    const float* last = nullptr;
    for (int j = 0; j < b.count; j++) {
      const T* from = first + j * p_.k.sl;
      if (!affine) {
        int64_t offset = key_row(p_, t_, p_.k, b.first + j);
        if (offset < 0) missing |= uint64_t{1} << j, offset = 0;
        from = base + offset;
      }
      if (c_.copy_keys) {
        float* to = w_.keys + int64_t{j} * c_.words;
        copy_row<kWords>(from, p_.k.sd, p_.dim, to);
        last = to;
      } else {
        last = row_words(from);
      }
      row_[j] = last;
    }
    for (int j = b.count; j % kRowsOfTile; j++) row_[j] = last;
    return missing;
  }

  // Values of a block: rows as they are, converted, or in pairs of neighbouring keys for the dot instruction.
  void add_values(const KeyBlock& b) {
    const T* from[kBlockKeys + 1];
    const T* base = static_cast<const T*>(p_.v.data);
    bool affine = !p_.page_table && !p_.kv_rows;
    const T* first = base + key_row(p_, t_, p_.v, affine ? b.first : 0);
    for (int j = 0; j < b.count; j++) {
      from[j] = first + j * p_.v.sl;
      if (affine) continue;
      from[j] = base + max64(0, key_row(p_, t_, p_.v, b.first + j));
    }
    const float* row[kBlockKeys];
    int rows = b.count;
    const float* weights = w_.scores;
    if constexpr (kWords == Words::Bf16Pair) {
      from[b.count] = from[b.count - 1];
      rows = (b.count + 1) / 2;
      weights = w_.weights;
      for (int j = 0; j < rows; j++) {
        float* to = w_.values + int64_t{j} * c_.dim_v;
        pair_rows(from[2 * j], from[2 * j + 1], to);
        row[j] = to;
      }
    } else {
      for (int j = 0; j < rows; j++) {
        row[j] = row_words(from[j]);
        if (!c_.copy_values) continue;
        float* to = w_.values + int64_t{j} * c_.dim_v;
        copy_row<kWords>(from[j], p_.v.sd, p_.dim_v, to);
        row[j] = to;
      }
    }
    accumulate_values<NZ, kWords>(row, rows, c_.dim_v, weights, w_.out);
  }

  // to[d] = (a[d], b[d]) as one word.
  void pair_rows(const T* a, const T* b, float* to) {
    if constexpr (kWords == Words::Bf16Pair) {
      int d = 0;
      uint32_t* words = reinterpret_cast<uint32_t*>(to);
      if (p_.v.sd == 1)
        for (; d + kLanes <= c_.dim_v; d += kLanes) {
          vu low = __builtin_convertvector(*reinterpret_cast<const vh_unaligned*>(a + d), vu);
          vu high = __builtin_convertvector(*reinterpret_cast<const vh_unaligned*>(b + d), vu);
          store(reinterpret_cast<int32_t*>(words + d), reinterpret_cast<vi>(low | high << 16));
        }
      for (; d < c_.dim_v; d++) words[d] = a[d * p_.v.sd].bits | static_cast<uint32_t>(b[d * p_.v.sd].bits) << 16;
    }
  }

  // Two weights of one lane as a bf16 pair; weights are not negative, so rounding half up in integers is enough.
  FOVEA_INLINE vf pair_of(vf first, vf second) {
    vu half = reinterpret_cast<vu>(set1(int32_t{0x8000}));
    vu low = (reinterpret_cast<vu>(first) + half) >> 16, high = (reinterpret_cast<vu>(second) + half) & 0xffff0000u;
    return reinterpret_cast<vf>(low | high);
  }

  // Scores of a full block turned into weights before they are stored. False: some lane outgrew its maximum, nothing was kept.
  bool weigh_in_registers(const KeyBlock& b) {
    vf sum[NZ], highest[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) sum[z] = zero(), highest[z] = set1(-kInfinity);
    const vf scale = set1(c_.to_log2);
    for (int j = 0; j < b.count; j += kRowsOfTile) {
      vf acc[kRowsOfTile][NZ];
      score_tile<NZ, kWords>(row_ + j, w_.queries, c_.words, acc);
      FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) {
        vf m = load(w_.maximum + z * kLanes);
        FOVEA_UNROLL
        for (int i = 0; i < kRowsOfTile; i++) {
          vf x = kWords == Words::F32 ? acc[i][z] - m : fma(acc[i][z], scale, zero() - m);
          highest[z] = max(highest[z], x);
          acc[i][z] = exp2_weight<kWords>(x);
          sum[z] += acc[i][z];
          if constexpr (kWords == Words::F32) store(w_.scores + ((j + i) * NZ + z) * kLanes, acc[i][z]);
          else if (i % 2) store(w_.weights + ((j + i) / 2 * NZ + z) * kLanes, pair_of(acc[i - 1][z], acc[i][z]));
        }
      }
    }
    vi over = highest[0] > set1(kSlack);
    FOVEA_UNROLL
    for (int z = 1; z < NZ; z++) over |= highest[z] > set1(kSlack);
    if (any(over)) return false;
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(w_.sum + z * kLanes, load(w_.sum + z * kLanes) + sum[z]);
    return true;
  }

  // Any block: scores in memory, whatever the call does to them, maximum, weights.
  void weigh_in_memory(const KeyBlock& b, uint64_t missing) {
    for (int j = 0; j < b.count; j += kRowsOfTile) {
      vf acc[kRowsOfTile][NZ];
      score_tile<NZ, kWords>(row_ + j, w_.queries, c_.words, acc);
      FOVEA_UNROLL
      for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) store(w_.scores + ((j + i) * NZ + z) * kLanes, acc[i][z]);
    }
    if (!c_.plain) {
      if (c_.score_scale != 1 || p_.softcap > 0) scale_and_cap<NZ>(w_.scores, b.count, c_.score_scale, p_.softcap);
      if (p_.bias.data) add_bias<NZ>(p_.bias, t_, b, w_.scores);
      if (p_.mask.data) apply_mask_tensor<NZ>(p_.mask, t_, b, w_.scores);
    }
    vf highest[NZ];
    mask_and_maximum<NZ>(t_, b, missing, c_.to_log2, w_.scores, highest);
    grow(highest);
    exponentiate(b.count);
  }

  // Lifts the running maximum of all lanes when one has outgrown it, and rescales what was accumulated under the old one.
  void grow(const vf (&highest)[NZ]) {
    vi over{};
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) over |= highest[z] > load(w_.maximum + z * kLanes) + set1(kSlack);
    if (!any(over)) return;
    vf factor[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      vf old = load(w_.maximum + z * kLanes), now = max(old, highest[z]);
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

  void exponentiate(int count) {
    vf sum[NZ], m[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) sum[z] = load(w_.sum + z * kLanes), m[z] = load(w_.maximum + z * kLanes);
    auto weight = [&](int j, int z) {
      vf e = exp2_weight<kWords>(load(w_.scores + (j * NZ + z) * kLanes) - m[z]);
      sum[z] += e;
      return e;
    };
    if constexpr (kWords == Words::F32) {
      for (int j = 0; j < count; j++) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) store(w_.scores + (j * NZ + z) * kLanes, weight(j, z));
    } else {
      for (int j = 0; j < count; j += 2) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) {
        vf first = weight(j, z), second = j + 1 < count ? weight(j + 1, z) : zero();
        store(w_.weights + (j / 2 * NZ + z) * kLanes, pair_of(first, second));
      }
    }
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(w_.sum + z * kLanes, sum[z]);
  }

  const Call& c_;
  const AttentionParams& p_;
  const QueryTile& t_;
  const Workspace& w_;
  const float* row_[kBlockKeys + kRowsOfTile];
};

// Divides by the sums and writes out and lse of a tile whose O^T, sum and maximum are in the workspace.
template <class T, int NZ>
void finish_tile(const Call& c, const QueryTile& t, const Workspace& w) {
  const AttentionParams& p = c.p;
  for (int z = 0; z < NZ; z++) {
    vi empty = load(t.begin + z * kLanes) >= load(t.end + z * kLanes);
    vf sum = select(empty, zero(), load(w.sum + z * kLanes)), maximum = load(w.maximum + z * kLanes);
    vi nothing = sum == zero();
    vf inverse = select(nothing, zero(), set1(1.f) / sum);
    vf lse = select(nothing, set1(-kInfinity), fma(maximum, set1(kLn2), log_positive(sum)));
    lse = select(sum != sum, sum, lse);
    const int used = t.lanes - z * kLanes < kLanes ? t.lanes - z * kLanes : kLanes;
    T* to[kLanes];
    for (int i = 0; i < used; i++) {
      int lane = z * kLanes + i;
      int64_t row = query_row(p, t.seq, t.head, t.query_of(lane)), head = t.head_of(lane);
      to[i] = row < 0 ? nullptr : static_cast<T*>(p.out.data) + t.seq.batch * p.out.sb + head * p.out.sh + row * p.out.sl;
      if (p.lse && row >= 0) p.lse[t.seq.batch * p.lse_sb + head * p.lse_sh + row * p.lse_sl] = lse[i];
    }
    for (int64_t d0 = 0; d0 < c.dim_v; d0 += kLanes) {
      vf v[kLanes];
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) v[i] = select(nothing, zero(), load(w.out + ((d0 + i) * NZ + z) * kLanes) * inverse);
      transpose(v);
      int n = c.dim_v - d0 < kLanes ? static_cast<int>(c.dim_v - d0) : kLanes;
      for (int i = 0; i < used; i++) {
        if (!to[i]) continue;
        if (p.out.sd == 1) store_part(to[i] + d0, v[i], n);
        else
          for (int d = 0; d < n; d++) to[i][(d0 + d) * p.out.sd] = narrow<T>(v[i][d]);
      }
    }
  }
}

// Calls f with the number of vectors of a tile as a constant.
template <class F>
FOVEA_INLINE void dispatch_vectors(int vectors, F&& f) {
  if (vectors == 1) f.template operator()<1>();
  else if (vectors == 2) f.template operator()<2>();
  else f.template operator()<3>();
}

}  // namespace
}  // namespace fovea::cpu
