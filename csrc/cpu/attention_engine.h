// The loop every forward pass shares: one tile of queries visits key blocks, scores, exponentiates, accumulates values.
//
//   S^T = K rows x Q^T      P = 2^(S - m)      O^T += V rows x P
//
// Two bodies. A block of a plain call (masks, but no bias, cap or program) is weighed in the shadow of its own product: the exponentials of
// one register tile run while the next tile's scores are summed. That needs the maximum m before the scores exist, so m is an estimate: the
// first scores the tile meets, visible or not. Weights up to 2^kSlack are exact all the same; when a lane exceeds that, the block is redone
// by the other body, which stores scores, applies what the call asks for, takes the true maximum and rescales O. Should an estimate turn
// out far too high (a sum below kFaint), the tile is run again with true maxima. Both are rare, and depend on the tile's data alone,
// never on threads or batch.
#pragma once

#include <new>

#include "core/thread_pool.h"
#include "cpu/attention_scores.h"
#include "cpu/program_vm.h"

namespace fovea::cpu {
namespace {

constexpr float kSlack = 24;        // log2; sums stay far below the largest float
constexpr float kFaint = 0x1p-60f;  // sums above it have all their bits

// What all tiles of a call share.
struct Call {
  const AttentionParams& p;
  const ProgramPlan* score;
  bool plain;         // scores need nothing but the scale and structural masks
  int words, dim_v;   // 32-bit words of a query or key row
  float query_scale;  // folded into the packed queries
  float score_scale;  // applied to stored scores before anything else (1 where folded)
  float to_log2;      // applied last
  bool copy_keys, copy_values;

  Call(const AttentionParams& params, const ProgramPlan* program, Words kind, bool narrow) : p(params), score(program) {
    plain = p.softcap <= 0 && !p.bias.data && !p.mask.data && !score;
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
  float *queries, *scores, *weights, *out, *maximum, *sum, *keys, *values, *rows, *program;

  static int64_t padded(int64_t n) { return round_up(n, 16); }
  static int64_t floats(const Call& c) { return Workspace{}.cut(c, nullptr); }

  int64_t cut(const Call& c, float* base) {
    int64_t at = 0;
    auto take = [&](int64_t n) {
      int64_t here = at;
      at += padded(n);
      return base ? base + here : nullptr;
    };
    queries = take(int64_t{c.words} * kTileQueries);
    scores = take(int64_t{kBlockKeys + kRowsOfTile} * kTileQueries);
    weights = take(int64_t{kBlockKeys / 2 + kRowsOfTile} * kTileQueries);
    out = take(round_up(c.dim_v, kLanes) * kTileQueries);
    maximum = take(kTileQueries);
    sum = take(kTileQueries);
    keys = take(c.copy_keys ? int64_t{kBlockKeys} * c.words : 0);
    values = take(c.copy_values ? int64_t{kBlockKeys} * c.dim_v : 0);
    rows = take(kLanes);
    program = take(c.score ? static_cast<int64_t>(ProgramVm::scratch_bytes(*c.score, kTileQueries) / 4) + 16 : 0);
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
    pass(from, to, !c_.plain);
    if (c_.plain && faint()) pass(from, to, true);
  }

 private:
  void pass(int64_t from, int64_t to, bool exact) {
    for (int z = 0; z < NZ; z++) {
      store(w_.maximum + z * kLanes, set1(kLowest));
      store(w_.sum + z * kLanes, zero());
    }
    for (int64_t i = 0; i < int64_t{c_.dim_v} * NZ; i++) store(w_.out + i * kLanes, zero());
    KeyBlocks blocks(p_, t_, from, to);
    started_ = false;
    alignas(ProgramVm) char place[sizeof(ProgramVm)];
    ProgramVm* vm = c_.score ? start_program(place) : nullptr;
    for (KeyBlock b; blocks.next(b); started_ = true) {
      if (!started_) pack_queries();
      uint64_t missing = point_at_keys(b);
      if (exact || missing || !weigh_in_shadow(b)) weigh_in_memory(b, missing, vm);
      add_values(b);
    }
  }

  ProgramVm* start_program(char* place) const {
    ProgramVm* vm = new (place) ProgramVm(*c_.score, NZ * kLanes, w_.program);
    vm->begin_head(static_cast<int32_t>(t_.seq.index), static_cast<int32_t>(t_.head));
    vm->begin_queries(NZ * kLanes, static_cast<int32_t>(t_.first + p_.q_offset));
    return vm;
  }

  // Some lane that sees keys has almost nothing in its sum.
  bool faint() const {
    vi found{};
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++)
      found |= (load(w_.sum + z * kLanes) < set1(kFaint)) & (load(t_.begin + z * kLanes) < load(t_.end + z * kLanes));
    return started_ && any(found);
  }

  bool weigh_in_shadow(const KeyBlock& b) {
    if (b.bits) return b.edge ? weigh_in_shadow<true, true>(b) : weigh_in_shadow<false, true>(b);
    return b.edge ? weigh_in_shadow<true, false>(b) : weigh_in_shadow<false, false>(b);
  }

  // Q^T, kLanes queries by kLanes words at a time.
  __attribute__((noinline)) void pack_queries() {
    constexpr int kPerWord = kWords == Words::Bf16Pair ? 2 : 1;
    const int64_t dim = p_.dim, step = p_.q.sd;
    const int words = c_.words;
    const vf scale = set1(c_.query_scale);
    float* rest = w_.rows;  // the last words of every row, where fewer than kLanes are left or elements are not neighbours
    for (int z = 0; z < NZ; z++) {
      const T* row[kLanes];
      for (int i = 0; i < kLanes; i++) row[i] = query_pointer(z * kLanes + i);
      for (int d0 = 0; d0 < words; d0 += kLanes) {
        vf v[kLanes];
        const int n = words - d0 < kLanes ? words - d0 : kLanes;
        if (step == 1 && (d0 + kLanes) * kPerWord <= dim) {
          FOVEA_UNROLL
          for (int i = 0; i < kLanes; i++) v[i] = row[i] ? load_words(row[i] + d0 * kPerWord) : zero();
        } else {
          for (int i = 0; i < kLanes; i++) {
            store(rest, zero());
            if (row[i]) copy_row<kWords>(row[i] + d0 * kPerWord * step, step, min64(int64_t{kLanes} * kPerWord, dim - d0 * kPerWord), rest);
            v[i] = load(rest);
          }
        }
        transpose(v);
        float* to = w_.queries + (static_cast<size_t>(d0) * NZ + z) * kLanes;
        if constexpr (kWords == Words::F32) {
          FOVEA_UNROLL
          for (int i = 0; i < kLanes; i++) v[i] = v[i] * scale;
        }
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++)
          if (i < n) store(to + i * NZ * kLanes, v[i]);
      }
    }
  }

  const T* query_pointer(int lane) const {
    if (lane >= t_.lanes) return nullptr;
    int64_t head = t_.head, i = t_.first + lane;
    if (t_.heads > 1) head = t_.head_of(lane), i = t_.query_of(lane);
    int64_t row = query_row(p_, t_.seq, head, i);
    return row < 0 ? nullptr : static_cast<const T*>(p_.q.data) + t_.seq.batch * p_.q.sb + head * p_.q.sh + row * p_.q.sl;
  }

  FOVEA_INLINE static vf load_words(const T* p) {
    if constexpr (kWords == Words::Bf16Pair) return load(reinterpret_cast<const float*>(p));
    else return load(p);
  }

  // Addresses of the rows of a block's keys in k or v, as words; bit j of the result is set where key j has no row.
  FOVEA_INLINE uint64_t point_at(const AttentionTensor& tensor, const KeyBlock& b, const float** row) const {
    const T* base = static_cast<const T*>(tensor.data);
    if (!p_.page_table && !p_.kv_rows) {
      const T* first = base + key_row(p_, t_, tensor, b.first);
      const int64_t step = tensor.sl;
      for (int j = 0; j < b.count; j++) row[j] = reinterpret_cast<const float*>(first + j * step);
      return 0;
    }
    uint64_t missing = 0;
    for (int j = 0; j < b.count; j++) {
      int64_t offset = key_row(p_, t_, tensor, b.first + j);
      if (offset < 0) missing |= uint64_t{1} << j;
      row[j] = reinterpret_cast<const float*>(base + max64(offset, 0));
    }
    return missing;
  }

  static const T* elements(const float* words) { return reinterpret_cast<const T*>(words); }

  // Rows of the block's keys as words in row_, whole register tiles of them.
  uint64_t point_at_keys(const KeyBlock& b) {
    uint64_t missing = point_at(p_.k, b, row_);
    if (c_.copy_keys)
      for (int j = 0; j < b.count; j++) {
        float* to = w_.keys + int64_t{j} * c_.words;
        copy_row<kWords>(elements(row_[j]), p_.k.sd, p_.dim, to);
        row_[j] = to;
      }
    for (int j = b.count; j % kRowsOfTile; j++) row_[j] = row_[b.count - 1];
    return missing;
  }

  // Values of a block: rows as they are, converted, or in pairs of neighbouring keys for the dot instruction.
  __attribute__((noinline)) void add_values(const KeyBlock& b) {
    const float* from[kBlockKeys + 1] = {};
    point_at(p_.v, b, from);
    if constexpr (kWords == Words::Bf16Pair) {
      from[b.count] = from[b.count - 1];
      const int rows = (b.count + 1) / 2;
      const float* row[kBlockKeys / 2];
      for (int j = 0; j < rows; j++) {
        float* to = w_.values + int64_t{j} * c_.dim_v;
        pair_rows(elements(from[2 * j]), elements(from[2 * j + 1]), to);
        row[j] = to;
      }
      accumulate_values<NZ, kWords>(row, rows, c_.dim_v, w_.weights, w_.out);
    } else if (c_.copy_values) {
      const float* row[kBlockKeys];
      for (int j = 0; j < b.count; j++) {
        float* to = w_.values + int64_t{j} * c_.dim_v;
        copy_row<kWords>(elements(from[j]), p_.v.sd, p_.dim_v, to);
        row[j] = to;
      }
      accumulate_values<NZ, kWords>(row, b.count, c_.dim_v, w_.scores, w_.out);
    } else {
      accumulate_values<NZ, kWords>(from, b.count, c_.dim_v, w_.scores, w_.out);
    }
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

  // Weights of a block of a plain call, in the shadow of its scores. False: some lane outgrew its maximum, and nothing was kept.
  template <bool kRange, bool kBits>
  __attribute__((noinline)) bool weigh_in_shadow(const KeyBlock& b) {
    // Copies: vector stores may alias anything, so members would be read again after each.
    float *const scores = w_.scores, *const weights = w_.weights, *const maximum = w_.maximum;
    const int32_t *const begin = t_.begin, *const end = t_.end;
    const float scale = c_.to_log2;
    const KeyBlock block = b;
    const int count = block.count, whole = (count - 1) / kRowsOfTile * kRowsOfTile;
    alignas(64) float sum[NZ * kLanes], highest[NZ * kLanes];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      store(sum + z * kLanes, load(w_.sum + z * kLanes));
      store(highest + z * kLanes, set1(-kInfinity));
    }
    auto weight = [&](const float* at, int j, int z, const Exp2Constants* constants) __attribute__((always_inline)) {
      vf s = load(at + z * kLanes), m = load(maximum + z * kLanes);
      if constexpr (kRange) {
        vi first = load(begin + z * kLanes);
        s = mask_range(s, first, load(end + z * kLanes) - first, static_cast<int32_t>(block.first) + j);
      }
      if constexpr (kBits) s = mask_bits(s, block.bits + j * block.bits_pitch, block.bits_shift + z * kLanes);
      vf x = kWords == Words::F32 ? s - m : fma(s, set1(scale), zero() - m);
      store(highest + z * kLanes, max(load(highest + z * kLanes), x));
      vf e = exp2_weight<kWords>(x, constants);
      store(sum + z * kLanes, load(sum + z * kLanes) + e);
      return e;
    };
    auto weigh_row = [&](int j) __attribute__((always_inline)) {
      const Exp2Constants* constants = exp2_constants();
      float* at = scores + static_cast<size_t>(j) * NZ * kLanes;
      if constexpr (kWords == Words::F32) {
        FOVEA_UNROLL
        for (int z = 0; z < NZ; z++) store(at + z * kLanes, weight(at, j, z, constants));
      } else if (j % 2) {
        FOVEA_UNROLL
        for (int z = 0; z < NZ; z++) {
          vf first = weight(at - NZ * kLanes, j - 1, z, constants), second = weight(at, j, z, constants);
          store(weights + (static_cast<size_t>(j / 2) * NZ + z) * kLanes, pair_of(first, second));
        }
      }
    };
    score_rows(0, scores, [](int) {});
    if (!started_) estimate_maximum(count);
    for (int j = kRowsOfTile; j < count; j += kRowsOfTile)
      score_rows(
          j, scores, [&](int i) __attribute__((always_inline)) { weigh_row(j - kRowsOfTile + i); });
    for (int j = whole; j < count; j++) weigh_row(j);
    if (kWords == Words::Bf16Pair && count % 2)  // the last key has no partner
      FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) {
      const float* at = scores + static_cast<size_t>(count - 1) * NZ * kLanes;
      store(weights + (static_cast<size_t>(count / 2) * NZ + z) * kLanes, pair_of(weight(at, count - 1, z, exp2_constants()), zero()));
    }
    vi over{};
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) over |= load(highest + z * kLanes) > set1(kSlack);
    if (any(over)) return false;
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(w_.sum + z * kLanes, load(sum + z * kLanes));
    return true;
  }

  // The largest of the first stored scores.
  void estimate_maximum(int count) {
    const int rows = count < kRowsOfTile ? count : kRowsOfTile;
    for (int z = 0; z < NZ; z++) {
      vf m = set1(kLowest);
      for (int j = 0; j < rows; j++) m = max(load(w_.scores + (j * NZ + z) * kLanes) * set1(c_.to_log2), m);
      store(w_.maximum + z * kLanes, m);
    }
  }

  // Stores the raw scores of kRowsOfTile keys from key j of the block.
  template <class Shadow>
  FOVEA_INLINE void score_rows(int j, float* scores, Shadow&& shadow) {
    vf acc[kRowsOfTile][NZ];
    score_tile<NZ, kWords>(row_ + j, w_.queries, c_.words, acc, shadow);
    scores += static_cast<size_t>(j) * NZ * kLanes;
    FOVEA_UNROLL
    for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(scores + (i * NZ + z) * kLanes, acc[i][z]);
  }

  // Any block: scores in memory, whatever the call does to them, maximum, weights.
  __attribute__((noinline)) void weigh_in_memory(const KeyBlock& b, uint64_t missing, ProgramVm* vm) {
    for (int j = 0; j < b.count; j += kRowsOfTile) score_rows(j, w_.scores, [](int) {});
    if (!c_.plain) {
      if (c_.score_scale != 1 || p_.softcap > 0) scale_and_cap<NZ>(w_.scores, b.count, c_.score_scale, p_.softcap);
      if (c_.score) vm->score(b.count, static_cast<int32_t>(b.first + p_.kv_offset), w_.scores, NZ * kLanes);
      if (p_.bias.data) add_bias<NZ>(p_.bias, t_, b, w_.scores);
      if (p_.mask.data) apply_mask_tensor<NZ>(p_.mask, t_, b, w_.scores);
    }
    vf highest[NZ];
    mask_and_maximum<NZ>(t_, b, missing, w_.scores, highest);
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) highest[z] = highest[z] * set1(c_.to_log2);
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
    const Exp2Constants* constants = exp2_constants();
    float *const scores = w_.scores, *const weights = w_.weights;
    const vf scale = set1(c_.to_log2);
    auto weight = [&](int j, int z) {
      vf e = exp2_weight<kWords>(fma(load(scores + (j * NZ + z) * kLanes), scale, zero() - m[z]), constants);
      sum[z] += e;
      return e;
    };
    if constexpr (kWords == Words::F32) {
      for (int j = 0; j < count; j++) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) store(scores + (j * NZ + z) * kLanes, weight(j, z));
    } else {
      for (int j = 0; j < count; j += 2) FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) {
        vf first = weight(j, z), second = j + 1 < count ? weight(j + 1, z) : zero();
        store(weights + (j / 2 * NZ + z) * kLanes, pair_of(first, second));
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
  bool started_ = false;  // a block has been visited
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
    bool whole = used == kLanes && p.out.sd == 1;
    for (int i = 0; i < used; i++) {
      int lane = z * kLanes + i;
      int64_t head = t.head, query = t.first + lane;
      if (t.heads > 1) head = t.head_of(lane), query = t.query_of(lane);
      int64_t row = query_row(p, t.seq, head, query);
      to[i] = row < 0 ? nullptr : static_cast<T*>(p.out.data) + t.seq.batch * p.out.sb + head * p.out.sh + row * p.out.sl;
      whole = whole && to[i];
      if (p.lse && row >= 0) p.lse[t.seq.batch * p.lse_sb + head * p.lse_sh + row * p.lse_sl] = lse[i];
    }
    for (int64_t d0 = 0; d0 < c.dim_v; d0 += kLanes) {
      vf v[kLanes];
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) v[i] = select(nothing, zero(), load(w.out + ((d0 + i) * NZ + z) * kLanes) * inverse);
      transpose(v);
      if (whole && d0 + kLanes <= c.dim_v) {
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) store(to[i] + d0, v[i]);
        continue;
      }
      int n = c.dim_v - d0 < kLanes ? static_cast<int>(c.dim_v - d0) : kLanes;
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) {
        if (i >= used || !to[i]) continue;
        alignas(64) float part[kLanes];
        store(part, v[i]);
        for (int d = 0; d < n; d++) to[i][(d0 + d) * p.out.sd] = narrow<T>(part[d]);
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
