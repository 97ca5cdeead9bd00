// One strip of query tiles of a head against its key blocks: packing, the recomputed P, dS, and the three accumulations.
//
// A strip is as many tiles as keep their packed operands within kStripBytes. A tile holds Q^T (scale folded in), dO^T, Q and dO rows, dQ^T,
// lse and delta = rowsum(dO o O) - dlse. Rows of K and V are read in place where they are contiguous f32, else widened to scratch once a
// strip and block. Without bias, softcap and score program ("plain") P = exp2(S - lse) is formed in the accumulators; with them S is
// stored, changed in a pass of its own, and its derivative is chained into dS the same way.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/attention_backward.h"
#include "cpu/attention_backward_tile.h"
#include "cpu/attention_math.h"
#include "cpu/attention_rows.h"
#include "cpu/attention_visibility.h"
#include "cpu/program_vm.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kStripBytes = 320 << 10;
constexpr int kMaxStrip = 8;

// Hands out 64-byte aligned pieces of one buffer.
class Arena {
 public:
  explicit Arena(void* memory) : at_(static_cast<char*>(memory)) {}
  float* floats(int64_t n) {
    float* p = reinterpret_cast<float*>(at_);
    at_ += (n * 4 + 63) / 64 * 64;
    return p;
  }

 private:
  char* at_;
};

// v where the lane's bit is set, else 0.
FOVEA_INLINE vf keep(vf v, uint64_t bits) {
#if defined(__AVX512F__)
  return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v);
#else
  vi one{};
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) one[i] = 1 << i;
  vi on = (set1(static_cast<int32_t>(bits & 0xffff)) & one) != 0;
  return reinterpret_cast<vf>(on & reinterpret_cast<vi>(v));
#endif
}

struct StripTile {
  TileVisibility visible;
  int64_t q0;
  int nq;
  bool empty;
  float *qt, *dot, *q, *dout, *dqt, *lse, *delta;
};

// True where every element of dbias belongs to one chunk, so that run_strip may add to it directly.
inline bool bias_gradient_in_blocks(const AttentionParams& p, const AttentionGrads& g) {
  int64_t sequences = p.cu_q ? p.sequences : p.batch;
  return (sequences == 1 || (g.dbias.sb && !p.cu_q)) && (p.heads_q == 1 || g.dbias.sh) && (p.len_q <= kTileQ || g.dbias.sq);
}

class BlockWork {
 public:
  static int strip_tiles(const AttentionParams& p) {
    int64_t n = kStripBytes / (4 * tile_floats(p));
    return static_cast<int>(n < 1 ? 1 : n > kMaxStrip ? kMaxStrip : n);
  }
  static int64_t bytes(const AttentionParams& p) {
    int64_t block = kBlockKv * (padded(p.dim) + padded(p.dim_v)), row = padded(p.dim > p.dim_v ? p.dim : p.dim_v);
    int64_t tables = p.score ? 2 * p.score->table_count : 0;
    return 4 * (strip_tiles(p) * tile_floats(p) + block + 2 * row + 4 * kBlockKv * kTileQ + tables) + 64 * (7 * kMaxStrip + 9);
  }

  // score and derivative: this thread's interpreters of the call's programs, or null.
  BlockWork(const AttentionParams& p, const AttentionGrads& g, ProgramVm* score, ProgramVm* derivative, Arena& arena)
      : p_(p), g_(g), score_(score), derivative_(derivative), strip_(strip_tiles(p)), k_pitch_(padded(p.dim)), v_pitch_(padded(p.dim_v)) {
    scored_ = p.softcap != 0 || p.bias.data || p.score;
    bias_in_blocks_ = g.dbias.data && bias_gradient_in_blocks(p, g);
    for (int i = 0; i < strip_; i++) {
      StripTile& t = tiles_[i];
      t.qt = arena.floats(kTileQ * p.dim), t.dot = arena.floats(kTileQ * p.dim_v), t.dqt = arena.floats(kTileQ * p.dim);
      t.q = arena.floats(kTileQ * k_pitch_), t.dout = arena.floats(kTileQ * v_pitch_);
      t.lse = arena.floats(kTileQ), t.delta = arena.floats(kTileQ);
    }
    int64_t row = k_pitch_ > v_pitch_ ? k_pitch_ : v_pitch_;
    k_ = arena.floats(kBlockKv * k_pitch_), v_ = arena.floats(kBlockKv * v_pitch_);
    row_ = arena.floats(row), zeros_ = arena.floats(row);
    memset(zeros_, 0, row * 4);
    weights_ = arena.floats(kBlockKv * kTileQ), slopes_ = arena.floats(kBlockKv * kTileQ);
    logits_ = arena.floats(kBlockKv * kTileQ), bias_ = arena.floats(kBlockKv * kTileQ);
    if (p.score) table_at_ = reinterpret_cast<float**>(arena.floats(2 * p.score->table_count));
  }

  int64_t strip_queries() const { return strip_ * kTileQ; }

  // dk and dv are f32 sums indexed by key, tables the gradients of the score tables one after the other.
  void begin_head(const AttentionSequence& seq, int64_t head, float* dk, float* dv, float* tables) {
    seq_ = seq, head_ = head, kv_head_ = head / (p_.heads_q / p_.heads_kv);
    dk_ = dk, dv_ = dv, tables_ = tables ? table_at_ : nullptr;
    for (int i = 0; tables && i < p_.score->table_count; i++) {
      table_at_[i] = g_.dtables[i] ? tables : nullptr;
      if (g_.dtables[i]) tables += p_.score->tables[i].length;
    }
    if (score_) score_->begin_head(static_cast<int32_t>(seq.index), static_cast<int32_t>(head));
    if (derivative_) derivative_->begin_head(static_cast<int32_t>(seq.index), static_cast<int32_t>(head));
    q_rows_ = p_.q_rows ? p_.q_rows + seq.batch * p_.q_rows_sb + head * p_.q_rows_sh + seq.q_begin : nullptr;
    kv_rows_ = p_.kv_rows ? p_.kv_rows + seq.batch * p_.kv_rows_sb + kv_head_ * p_.kv_rows_sh + seq.kv_begin : nullptr;
  }

  // Queries [q0, min(q0 + strip_queries(), end)).
  void run_strip(int64_t q0, int64_t end) {
    int64_t lo = INT64_MAX, hi = 0;
    int count = 0;
    for (int64_t q = q0; q < end && count < strip_; q += kTileQ, count++) {
      StripTile& t = start_tile(count, q);
      if (t.empty) continue;
      if (t.visible.lo() < lo) lo = t.visible.lo();
      if (t.visible.hi() > hi) hi = t.visible.hi();
    }
    for (int64_t k0 = lo / kBlockKv * kBlockKv; k0 < hi; k0 += kBlockKv) {
      staged_ = -1;
      for (int i = 0; i < count; i++) run_block(tiles_[i], k0);
    }
    for (int i = 0; i < count; i++) write_queries(tiles_[i]);
  }

  // Packs the tile at q0 as number `slot` of the strip.
  StripTile& start_tile(int slot, int64_t q0) {
    StripTile& t = tiles_[slot];
    t.q0 = q0;
    t.visible.start(p_, seq_, head_, q0);
    t.nq = t.visible.queries();
    t.empty = t.visible.lo() >= t.visible.hi();
    if (t.empty) return t;
    pack_rows(t);
    int lanes = lanes_of(t);
    transpose_rows(t.q, k_pitch_, t.nq, lanes, p_.dim, p_.scale * (scored_ ? 1 : kLog2E), t.qt);
    transpose_rows(t.dout, v_pitch_, t.nq, lanes, p_.dim_v, 1, t.dot);
    memset(t.dqt, 0, kTileQ * p_.dim * 4);
    return t;
  }

  // Only the gradient of the bias, of key block k0 of a started tile.
  void run_bias_block(StripTile& t, int64_t k0) {
    staged_ = -1;
    int64_t j0;
    int n;
    if (!weights_block(t, k0, &j0, &n)) return;
    slopes_block(t, static_cast<int>(j0 - k0), n);
    add_bias(t, j0, n);
  }

 private:
  static int64_t tile_floats(const AttentionParams& p) { return kTileQ * (2 * p.dim + p.dim_v + padded(p.dim) + padded(p.dim_v) + 2); }

  void pack_rows(StripTile& t) {
    for (int i = 0; i < kTileQ; i++) {
      t.lse[i] = __builtin_inff(), t.delta[i] = 0;
      if (i >= t.nq) continue;
      int64_t row = q_rows_ ? q_rows_[t.q0 + i] : seq_.q_begin + t.q0 + i;
      int64_t lse_at = seq_.batch * p_.lse_sb + head_ * p_.lse_sh + row * p_.lse_sl;
      float lse = row < 0 ? -__builtin_inff() : p_.lse[lse_at], *q = t.q + i * k_pitch_, *dout = t.dout + i * v_pitch_;
      if (lse == -__builtin_inff()) {
        t.visible.drop(i);
        memset(q, 0, k_pitch_ * 4);
        memset(dout, 0, v_pitch_ * 4);
        continue;
      }
      t.lse[i] = lse * (scored_ ? 1 : kLog2E);
      widen_row(p_.dtype, p_.q, seq_.batch * p_.q.sb + head_ * p_.q.sh + row * p_.q.sl, p_.dim, q);
      widen_row(p_.dtype, g_.dout, seq_.batch * g_.dout.sb + head_ * g_.dout.sh + row * g_.dout.sl, p_.dim_v, dout);
      widen_row(p_.dtype, p_.out, seq_.batch * p_.out.sb + head_ * p_.out.sh + row * p_.out.sl, p_.dim_v, row_);
      vf sum = zero();
      for (int64_t d = 0; d < v_pitch_; d += kLanes) sum = fma(load(dout + d), load(row_ + d), sum);
      t.delta[i] = reduce_add(sum) - (g_.dlse ? g_.dlse[lse_at] : 0);
    }
  }

  // to[d][lane] = factor * rows[lane][d], 0 for lanes in [n, lanes).
  static void transpose_rows(const float* rows, int64_t pitch, int n, int lanes, int64_t dim, float factor, float* to) {
    for (int i0 = 0; i0 < lanes; i0 += kLanes)
      for (int64_t d0 = 0; d0 < dim; d0 += kLanes) {
        vf v[kLanes];
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) v[i] = i0 + i < n ? load(rows + (i0 + i) * pitch + d0) * factor : zero();
        transpose(v);
        for (int d = 0; d < kLanes && d0 + d < dim; d++) store(to + (d0 + d) * kTileQ + i0, v[d]);
      }
  }

  void write_queries(StripTile& t) {
    if (!g_.dq.data) return;
    if (t.empty) memset(t.q, 0, t.nq * k_pitch_ * 4);
    else untranspose(t);
    for (int i = 0; i < t.nq; i++) {
      int64_t row = q_rows_ ? q_rows_[t.q0 + i] : seq_.q_begin + t.q0 + i;
      if (row < 0) continue;
      put_row(g_.dtype, g_.dq, seq_.batch * g_.dq.sb + head_ * g_.dq.sh + row * g_.dq.sl, t.q + i * k_pitch_, p_.dim, p_.scale, false);
    }
  }

  // dQ rows over the tile's Q rows, which are no longer needed.
  void untranspose(StripTile& t) {
    for (int i0 = 0; i0 < t.nq; i0 += kLanes)
      for (int64_t d0 = 0; d0 < p_.dim; d0 += kLanes) {
        vf v[kLanes];
        FOVEA_UNROLL
        for (int d = 0; d < kLanes; d++) v[d] = d0 + d < p_.dim ? load(t.dqt + (d0 + d) * kTileQ + i0) : zero();
        transpose(v);
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) store(t.q + (i0 + i) * k_pitch_ + d0, v[i]);
      }
  }

  // Pointers to the rows of key block k0; absent rows are zero.
  void stage(int64_t k0) {
    if (staged_ == k0) return;
    staged_ = k0;
    int64_t n = seq_.kv_len - k0 < kBlockKv ? seq_.kv_len - k0 : kBlockKv;
    for (int j = 0; j < n; j++) {
      int64_t row = kv_rows_ ? kv_rows_[k0 + j] : seq_.kv_begin + k0 + j;
      k_row_[j] = row < 0 ? zeros_ : row_pointer(p_.k, row, p_.dim, k_ + j * k_pitch_);
      v_row_[j] = row < 0 ? zeros_ : row_pointer(p_.v, row, p_.dim_v, v_ + j * v_pitch_);
    }
  }

  const float* row_pointer(const AttentionTensor& t, int64_t row, int64_t n, float* wide) const {
    int64_t at = seq_.batch * t.sb + kv_head_ * t.sh + row * t.sl;
    if (p_.dtype == DType::F32 && t.sd == 1) return static_cast<const float*>(t.data) + at;
    widen_row(p_.dtype, t, at, n, wide);
    return wide;
  }

  void run_block(StripTile& t, int64_t k0) {
    int64_t j0;
    int n;
    if (!weights_block(t, k0, &j0, &n)) return;
    int r0 = static_cast<int>(j0 - k0);
    if (g_.dv.data) add_keys(weights_, t.dout, v_pitch_, t.nq, n, p_.dim_v, dv_ + j0 * v_pitch_);
    if (!g_.dq.data && !g_.dk.data && !tables_ && !bias_in_blocks_) return;
    slopes_block(t, r0, n);
    if (bias_in_blocks_) add_bias(t, j0, n);
    if (scored_) chain_scores(t, j0, n);
    if (g_.dq.data) add_queries(t, r0, n);
    if (g_.dk.data) add_keys(slopes_, t.q, k_pitch_, t.nq, n, p_.dim, dk_ + j0 * k_pitch_);
  }

  // P^T of the visible keys [*j0, *j0 + *n) of block k0 into weights_; false where there are none.
  bool weights_block(StripTile& t, int64_t k0, int64_t* j0, int* n) {
    if (t.empty) return false;
    int64_t lo = t.visible.lo(), hi = t.visible.hi(), from = k0 > lo ? k0 : lo, to = k0 + kBlockKv < hi ? k0 + kBlockKv : hi;
    if (from >= to) return false;
    Visible state = t.visible.of(from, to, words_, [&](int64_t j) { return !kv_rows_ || kv_rows_[j] >= 0; });
    if (state == Visible::None) return false;
    stage(k0);
    *j0 = from, *n = static_cast<int>(to - from);
    const float* const* rows = k_row_ + (from - k0);
    if (scored_) {
      if (state == Visible::Full)
        for (int j = 0; j < *n; j++) words_[j] = t.visible.lanes();
      scored_weights(t, rows, from, *n);
    } else if (state == Visible::Full) {
      plain_weights<false>(t, rows, *n);
    } else {
      plain_weights<true>(t, rows, *n);
    }
    return true;
  }

  template <bool kMasked>
  void plain_weights(const StripTile& t, const float* const* rows, int n) {
    const Exp2Constants* constants = exp2_constants();
    for (int panel = 0; panel < t.nq; panel += kPanel)
      for_row_groups(n, [&]<int R>(int j) {
        Accumulators<R, kGradVectors> acc;
        dots<R>(rows + j, t.qt + panel, static_cast<int>(p_.dim), acc);
        FOVEA_UNROLL
        for (int i = 0; i < R; i++) FOVEA_UNROLL
        for (int z = 0; z < kGradVectors; z++) {
          int lane = panel + z * kLanes;
          vf w = exp2_weight<Words::F32>(acc.v[i][z] - load(t.lse + lane), constants);
          if constexpr (kMasked) w = keep(w, words_[j + i] >> lane);
          store(weights_ + (j + i) * kTileQ + lane, w);
        }
      });
  }

  void scored_weights(StripTile& t, const float* const* rows, int64_t j0, int n) {
    for (int panel = 0; panel < t.nq; panel += kPanel)
      for_row_groups(n, [&]<int R>(int j) {
        Accumulators<R, kGradVectors> acc;
        dots<R>(rows + j, t.qt + panel, static_cast<int>(p_.dim), acc);
        FOVEA_UNROLL
        for (int i = 0; i < R; i++) FOVEA_UNROLL
        for (int z = 0; z < kGradVectors; z++) store(logits_ + (j + i) * kTileQ + panel + z * kLanes, acc.v[i][z]);
      });
    int lanes = lanes_of(t);
    if (p_.softcap != 0)
      for (int j = 0; j < n; j++)
        for (int i = 0; i < lanes; i += kLanes) {
          float* at = logits_ + j * kTileQ + i;
          store(at, tanh(load(at) * (1 / p_.softcap)) * p_.softcap);
        }
    memcpy(weights_, logits_, static_cast<size_t>(n) * kTileQ * 4);
    if (score_) {
      score_->begin_queries(lanes, static_cast<int32_t>(t.q0 + p_.q_offset));
      score_->score(n, static_cast<int32_t>(j0 + p_.kv_offset), weights_, kTileQ);
    }
    if (p_.bias.data) load_bias(t, j0, n);
    const Exp2Constants* constants = exp2_constants();
    for (int j = 0; j < n; j++)
      for (int i = 0; i < lanes; i += kLanes) {
        float* at = weights_ + j * kTileQ + i;
        vf logit = p_.bias.data ? load(at) + load(bias_ + j * kTileQ + i) : load(at);
        store(at, keep(exp2_weight<Words::F32>((logit - load(t.lse + i)) * kLog2E, constants), words_[j] >> i));
      }
  }

  // dT^T = P^T o (dP^T - delta) into slopes_.
  void slopes_block(const StripTile& t, int r0, int n) {
    for (int panel = 0; panel < t.nq; panel += kPanel)
      for_row_groups(n, [&]<int R>(int j) {
        Accumulators<R, kGradVectors> acc;
        dots<R>(v_row_ + r0 + j, t.dot + panel, static_cast<int>(p_.dim_v), acc);
        FOVEA_UNROLL
        for (int i = 0; i < R; i++) FOVEA_UNROLL
        for (int z = 0; z < kGradVectors; z++) {
          int at = (j + i) * kTileQ + panel + z * kLanes;
          store(slopes_ + at, load(weights_ + at) * (acc.v[i][z] - load(t.delta + panel + z * kLanes)));
        }
      });
  }

  // slopes_ from the gradient of t to that of the scaled product, and the gradients of the score tables.
  void chain_scores(const StripTile& t, int64_t j0, int n) {
    int lanes = lanes_of(t);
    if (derivative_) {
      derivative_->begin_queries(lanes, static_cast<int32_t>(t.q0 + p_.q_offset));
      derivative_->derivative(n, static_cast<int32_t>(j0 + p_.kv_offset), logits_, kTileQ, slopes_, kTileQ, tables_);
    }
    if (p_.softcap == 0) return;
    float inverse = 1 / (p_.softcap * p_.softcap);
    for (int j = 0; j < n; j++)
      for (int i = 0; i < lanes; i += kLanes) {
        float* at = slopes_ + j * kTileQ + i;
        vf s = load(logits_ + j * kTileQ + i);
        store(at, load(at) * (1.f - s * s * inverse));
      }
  }

  void add_queries(const StripTile& t, int r0, int n) {
    for (int panel = 0; panel < t.nq; panel += kPanel)
      for_row_groups(static_cast<int>(p_.dim),
                     [&]<int R>(int d) { accumulate_queries<R>(k_row_ + r0, d, slopes_ + panel, n, t.dqt + panel); });
  }

  // sums[j][d] += tile[j][q] rows[q][d]
  __attribute__((noinline)) static void add_keys(const float* tile, const float* rows, int64_t pitch, int nq, int n, int64_t dim,
                                                 float* sums) {
    int64_t vectors = (dim + kLanes - 1) / kLanes, z = 0;
    auto columns = [&]<int N>() {
      for_row_groups(n, [&]<int R>(int j) {
        accumulate_keys<R, N>(tile + j * kTileQ, rows + z * kLanes, pitch, nq, sums + j * pitch + z * kLanes, pitch);
      });
      z += N;
    };
    while (vectors - z >= kGradVectors) columns.template operator()<kGradVectors>();
    if (kGradVectors > 2 && vectors - z >= 2) columns.template operator()<2>();
    if (vectors - z >= 1) columns.template operator()<1>();
  }

  // bias_[j][lane] from rows [lane][j]; kLanes x kLanes pieces are transposed in registers where keys lie side by side.
  template <class T>
  void load_bias_as(const T* from, const StripTile& t, int n) {
    const AttentionGrid& b = p_.bias;
    for (int i0 = 0; i0 < lanes_of(t); i0 += kLanes)
      for (int j0 = 0; j0 < n; j0 += kLanes) {
        const int keys = n - j0 < kLanes ? n - j0 : kLanes;
        vf v[kLanes];
        for (int i = 0; i < kLanes; i++) {
          const T* row = from + (i0 + i < t.nq ? i0 + i : 0) * b.sq + j0 * b.skv;
          if (b.skv == 1) {
            v[i] = load_part(row, keys);
          } else {
            v[i] = zero();
            for (int j = 0; j < keys; j++) v[i][j] = to_float(row[j * b.skv]);
          }
        }
        transpose(v);
        for (int j = 0; j < keys; j++) store(bias_ + (j0 + j) * kTileQ + i0, v[j]);
      }
  }

  void load_bias(const StripTile& t, int64_t j0, int n) {
    const AttentionGrid& b = p_.bias;
    int64_t at = seq_.batch * b.sb + head_ * b.sh + t.q0 * b.sq + j0 * b.skv;
    with_float(b.dtype, [&]<class T>(TypeTag<T>) { load_bias_as(static_cast<const T*>(b.data) + at, t, n); });
  }

  // dbias += slopes_, which are still the gradient of t.
  void add_bias(const StripTile& t, int64_t j0, int n) {
    const AttentionGrid& b = g_.dbias;
    float* to = static_cast<float*>(b.data) + seq_.batch * b.sb + head_ * b.sh + t.q0 * b.sq + j0 * b.skv;
    if (b.skv != 1 || b.sq == 0) {
      for (int i = 0; i < t.nq; i++)
        for (int j = 0; j < n; j++) to[i * b.sq + j * b.skv] += slopes_[j * kTileQ + i];
      return;
    }
    for (int i0 = 0; i0 < t.nq; i0 += kLanes)
      for (int j1 = 0; j1 < n; j1 += kLanes) {
        const int keys = n - j1 < kLanes ? n - j1 : kLanes, queries = t.nq - i0 < kLanes ? t.nq - i0 : kLanes;
        vf v[kLanes];
        FOVEA_UNROLL
        for (int j = 0; j < kLanes; j++) v[j] = j < keys ? load(slopes_ + (j1 + j) * kTileQ + i0) : zero();
        transpose(v);
        for (int i = 0; i < queries; i++) {
          float* at = to + (i0 + i) * b.sq + j1;
          store_part(at, load_part(at, keys) + v[i], keys);
        }
      }
  }

  static int lanes_of(const StripTile& t) { return (t.nq + kPanel - 1) / kPanel * kPanel; }

  const AttentionParams& p_;
  const AttentionGrads& g_;
  ProgramVm *score_, *derivative_;
  int strip_;
  int64_t k_pitch_, v_pitch_, head_ = 0, kv_head_ = 0, staged_ = -1;
  bool scored_, bias_in_blocks_;
  AttentionSequence seq_{};
  const int32_t *q_rows_ = nullptr, *kv_rows_ = nullptr;
  float *dk_ = nullptr, *dv_ = nullptr;
  float **table_at_ = nullptr, **tables_ = nullptr;
  float *k_, *v_, *row_, *zeros_, *weights_, *slopes_, *logits_, *bias_;
  const float *k_row_[kBlockKv], *v_row_[kBlockKv];
  uint64_t words_[kBlockKv];
  StripTile tiles_[kMaxStrip];
};

// Scratch of one BlockWork and its interpreters.
inline int64_t work_bytes(const AttentionParams& p, const Programs& programs) {
  int64_t bytes = BlockWork::bytes(p);
  if (programs.score) bytes += static_cast<int64_t>(ProgramVm::scratch_bytes(*programs.score, kTileQ)) + 64;
  if (programs.derivative) bytes += static_cast<int64_t>(ProgramVm::scratch_bytes(*programs.derivative, kTileQ)) + 64;
  return bytes;
}

template <class F>
void with_work(const AttentionParams& p, const AttentionGrads& g, const Programs& programs, Arena& arena, F&& f) {
  auto run = [&](ProgramVm* score, ProgramVm* derivative) {
    BlockWork work(p, g, score, derivative, arena);
    f(work);
  };
  auto memory = [&](const ProgramPlan& plan) { return arena.floats(static_cast<int64_t>(ProgramVm::scratch_bytes(plan, kTileQ) + 3) / 4); };
  if (!programs.score) return run(nullptr, nullptr);
  ProgramVm score(*programs.score, kTileQ, memory(*programs.score));
  if (!programs.derivative) return run(&score, nullptr);
  ProgramVm derivative(*programs.derivative, kTileQ, memory(*programs.derivative));
  run(&score, &derivative);
}

}  // namespace
}  // namespace fovea::cpu
