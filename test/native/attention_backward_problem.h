// Configurations of attention and their gradients by plain double-precision loops. Shared by the tests of the backward kernels: the CPU's
// in this folder, the device's in test/gpu.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/attention_params.h"
#include "sixteen_bit.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a small plain call.
struct Case {
  const char* name;
  int64_t batch = 2, heads_q = 2, heads_kv = 1, len_q = 70, len_kv = 80, dim = 16, dim_v = 16;
  bool causal = false, bottom_right = false;
  int64_t left = -1, right = -1;
  float softcap = 0;
  bool dlse = false, kv_lengths = false, rows = false, alibi = false;
  std::vector<int32_t> cu = {};                                                   // packed: both q and kv
  bool bias = false, bias_b = true, bias_h = true, bias_q = true, bias_k = true;  // axes the bias has
  bool mask = false;
  int block_q = 0, block_kv = 0;
  DType dtype = DType::F32;
};

// Values of an operand, as floats and in a 16-bit storage type.
struct Operand {
  std::vector<float> wide;
  std::vector<uint16_t> narrow;
  void set(size_t i, DType dtype, float x) {
    wide[i] = x;
    if (dtype == DType::F32) return;
    narrow[i] = ::narrow(dtype, x);
    wide[i] = widen(dtype, narrow.data(), static_cast<int64_t>(i));
  }
  void fill(std::mt19937& rng, size_t n, DType dtype, float scale) {
    std::normal_distribution<float> normal(0, scale);
    wide.resize(n), narrow.resize(n);
    for (size_t i = 0; i < n; i++) set(i, dtype, normal(rng));
  }
  void* data(DType dtype) { return dtype == DType::F32 ? static_cast<void*>(wide.data()) : narrow.data(); }
};

struct Problem {
  Case c;
  AttentionParams p{};
  AttentionGrads g{};
  Operand q, k, v, out, dout, bias;
  std::vector<float> lse, dlse, slopes;
  std::vector<uint8_t> mask, tile_bits;
  std::vector<int32_t> lengths, q_rows, kv_rows, row_begin, columns, tiles;
  BlockMaskView block{};
  MaskTable table{};
  MaskProgram score{}, derivative{};
  std::vector<MaskInstr> score_code, derivative_code;
  MaskScatter scatter{};
  std::vector<double> dq, dk, dv, dbias, dslopes;  // expected
  double slope_terms = 0;                          // sum of |terms| of dslopes, which cancel

  int64_t physical_q() const { return c.rows ? c.len_q + 3 : c.len_q; }
  int64_t physical_kv() const { return c.rows ? c.len_kv / 2 + 1 : c.len_kv; }
  bool block_visible(int64_t q, int64_t kv) const { return (q / c.block_q + 2 * (kv / c.block_kv)) % 3 != 1; }
  bool block_full(int64_t q, int64_t kv) const { return (q / c.block_q + kv / c.block_kv) % 2 == 0; }
};

AttentionTensor strided(void* data, int64_t heads, int64_t length, int64_t dim, bool heads_inside) {
  if (heads_inside) return {data, length * heads * dim, dim, heads * dim, 1};
  return {data, heads * length * dim, length * dim, dim, 1};
}

void make_block_mask(Problem& t) {
  const Case& c = t.c;
  int64_t qb = (c.len_q + c.block_q - 1) / c.block_q, kb = (c.len_kv + c.block_kv - 1) / c.block_kv;
  int64_t bytes = c.block_kv * (c.block_q / 8);
  t.row_begin.push_back(0);
  for (int64_t i = 0; i < qb; i++) {
    for (int64_t j = 0; j < kb; j++) {
      int64_t q0 = i * c.block_q, k0 = j * c.block_kv;
      if (!t.block_visible(q0, k0)) continue;
      t.columns.push_back(static_cast<int32_t>(j));
      bool whole = q0 + c.block_q <= c.len_q && k0 + c.block_kv <= c.len_kv;
      if (t.block_full(q0, k0) && whole) {
        t.tiles.push_back(-1);
        continue;
      }
      t.tiles.push_back(static_cast<int32_t>(t.tile_bits.size() / bytes));
      t.tile_bits.resize(t.tile_bits.size() + bytes);
      uint8_t* bits = t.tile_bits.data() + t.tile_bits.size() - bytes;
      for (int64_t kv = 0; kv < c.block_kv; kv++)
        for (int64_t q = 0; q < c.block_q; q++)
          if (q0 + q < c.len_q && k0 + kv < c.len_kv && (t.block_full(q0, k0) || (q0 + q + k0 + kv) % 3))
            bits[kv * (c.block_q / 8) + q / 8] |= static_cast<uint8_t>(1 << (q % 8));
    }
    t.row_begin.push_back(static_cast<int32_t>(t.columns.size()));
  }
  t.block = {c.block_q,          c.block_kv,       static_cast<int32_t>(qb), static_cast<int32_t>(kb), c.len_q, c.len_kv, 0,      0,
             t.row_begin.data(), t.columns.data(), t.tiles.data(),           t.tile_bits.data(),       nullptr, nullptr,  nullptr};
  t.p.block_mask = &t.block;
}

// score = s - slope[h] * (q - kv); dL/ds = up, dL/dslope[h] += -(q - kv) * up
void make_alibi(Problem& t, std::mt19937& rng) {
  std::uniform_real_distribution<float> uniform(0.01f, 0.2f);
  for (int64_t h = 0; h < t.c.heads_q; h++) t.slopes.push_back(uniform(rng));
  t.table = {t.slopes.data(), t.c.heads_q, 0};
  using enum MaskOp;
  t.score_code = {{Head, 0, 0, 0},       {LoadF, 0, 0, 0}, {Query, 0, 0, 0}, {Key, 0, 0, 0}, {SubI, 2, 3, 0},
                  {IntToFloat, 4, 0, 0}, {MulF, 1, 5, 0},  {Score, 0, 0, 0}, {SubF, 7, 6, 0}};
  t.derivative_code = {{Head, 0, 0, 0},       {Query, 0, 0, 0},    {Key, 0, 0, 0}, {SubI, 2, 1, 0},
                       {IntToFloat, 3, 0, 0}, {Upstream, 0, 0, 0}, {MulF, 4, 5, 0}};
  t.scatter = {0, 0, 6};
  t.score = {t.score_code.data(), 9, 2, 3, 4, 8, nullptr, 0, &t.table, 1, nullptr, 0};
  t.derivative = {t.derivative_code.data(), 7, 1, 2, 3, 5, &t.scatter, 1, &t.table, 1, nullptr, 0};
  t.p.score = &t.score;
  t.g.derivative = &t.derivative;
}

void make_params(Problem& t, uint32_t seed) {
  const Case& c = t.c;
  std::mt19937 rng(seed);
  AttentionParams& p = t.p;
  p.dtype = c.dtype, p.batch = c.batch, p.heads_q = c.heads_q, p.heads_kv = c.heads_kv, p.len_q = c.len_q, p.len_kv = c.len_kv;
  p.dim = c.dim, p.dim_v = c.dim_v, p.scale = 1 / std::sqrt(static_cast<float>(c.dim)), p.softcap = c.softcap;
  p.causal = c.causal, p.align = c.bottom_right ? Align::BottomRight : Align::TopLeft, p.window_left = c.left, p.window_right = c.right;
  int64_t pq = t.physical_q(), pk = t.physical_kv();
  t.q.fill(rng, c.batch * c.heads_q * pq * c.dim, c.dtype, 1);
  t.k.fill(rng, c.batch * c.heads_kv * pk * c.dim, c.dtype, 1);
  t.v.fill(rng, c.batch * c.heads_kv * pk * c.dim_v, c.dtype, 1);
  t.dout.fill(rng, c.batch * c.heads_q * pq * c.dim_v, c.dtype, 1);
  t.out.fill(rng, c.batch * c.heads_q * pq * c.dim_v, c.dtype, 0);
  t.lse.resize(c.batch * c.heads_q * pq);
  p.q = strided(t.q.data(c.dtype), c.heads_q, pq, c.dim, true);
  p.k = strided(t.k.data(c.dtype), c.heads_kv, pk, c.dim, false);
  p.v = strided(t.v.data(c.dtype), c.heads_kv, pk, c.dim_v, true);
  p.out = strided(t.out.data(c.dtype), c.heads_q, pq, c.dim_v, false);
  t.g.dout = strided(t.dout.data(c.dtype), c.heads_q, pq, c.dim_v, true);
  p.lse = t.lse.data(), p.lse_sb = c.heads_q * pq, p.lse_sh = pq;
  if (c.dlse) {
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < t.lse.size(); i++) t.dlse.push_back(normal(rng));
    t.g.dlse = t.dlse.data();
  }
  if (c.kv_lengths) {
    for (int64_t b = 0; b < c.batch; b++) t.lengths.push_back(static_cast<int32_t>(b == 0 ? 0 : c.len_kv - 7 * b));
    p.kv_lengths = t.lengths.data();
  }
  if (!c.cu.empty()) p.cu_q = p.cu_kv = t.c.cu.data(), p.sequences = static_cast<int64_t>(c.cu.size()) - 1;
  if (c.rows) {
    for (int64_t i = 0; i < c.len_q; i++) t.q_rows.push_back(static_cast<int32_t>(i % 9 == 5 ? -1 : pq - 1 - i));
    for (int64_t i = 0; i < c.len_kv; i++) t.kv_rows.push_back(static_cast<int32_t>(i % 7 == 2 ? -1 : i * 5 % pk));
    p.q_rows = t.q_rows.data(), p.kv_rows = t.kv_rows.data();
  }
  if (c.bias) {
    int64_t b = c.bias_b ? c.batch : 1, h = c.bias_h ? c.heads_q : 1, q = c.bias_q ? c.len_q : 1, k = c.bias_k ? c.len_kv : 1;
    t.bias.fill(rng, b * h * q * k, DType::F32, 1);
    p.bias = {t.bias.wide.data(), DType::F32, c.bias_b ? h * q * k : 0, c.bias_h ? q * k : 0, c.bias_q ? k : 0, c.bias_k ? 1 : 0};
    t.dbias.resize(t.bias.wide.size());
  }
  if (c.mask) {
    t.mask.resize(c.batch * c.len_q * c.len_kv);
    for (uint8_t& m : t.mask) m = rng() % 4 != 0;
    for (int64_t j = 0; j < c.len_kv; j++) t.mask[j] = 0;  // query 0 sees nothing
    p.mask = {t.mask.data(), DType::Bool, c.len_q * c.len_kv, 0, c.len_kv, 1};
  }
  if (c.block_q) make_block_mask(t);
  if (c.alibi) make_alibi(t, rng);
}

template <class F>
void for_grid(const AttentionGrid& g, int64_t b, int64_t h, int64_t i, int64_t j, F&& f) {
  f(b * g.sb + h * g.sh + i * g.sq + j * g.skv);
}

bool visible(const Problem& t, int64_t s, int64_t i, int64_t j, int64_t nq, int64_t nk) {
  const Case& c = t.c;
  int64_t at = i + (c.bottom_right ? nk - nq : 0);
  if (j >= nk || (c.causal && j > at)) return false;
  if ((c.left >= 0 && j < at - c.left) || (c.right >= 0 && j > at + c.right)) return false;
  if (c.rows && (t.q_rows[i] < 0 || t.kv_rows[j] < 0)) return false;
  if (c.mask && !t.mask[(s * c.len_q + i) * c.len_kv + j]) return false;
  if (c.block_q && (!t.block_visible(i, j) || !(t.block_full(i, j) || (i + j) % 3))) return false;
  return true;
}

int64_t offset(const AttentionTensor& t, int64_t b, int64_t h, int64_t l) { return b * t.sb + h * t.sh + l * t.sl; }

// Forward and gradients of one query row in double; out and lse are stored for the kernel.
void reference_row(Problem& t, int64_t s, int64_t h, int64_t i, int64_t q_begin, int64_t kv_begin, int64_t nq, int64_t nk) {
  const Case& c = t.c;
  AttentionParams& p = t.p;
  int64_t b = c.cu.empty() ? s : 0, hk = h / (c.heads_q / c.heads_kv);
  int64_t qi = c.rows ? t.q_rows[i] : q_begin + i;
  std::vector<double> x(nk), s_in(nk), w(nk);
  std::vector<int64_t> row(nk);
  double high = -INFINITY, sum = 0;
  if (qi < 0) return;
  for (int64_t j = 0; j < nk; j++) {
    w[j] = -INFINITY;
    if (!visible(t, s, i, j, nq, nk)) continue;
    row[j] = c.rows ? t.kv_rows[j] : kv_begin + j;
    double dot = 0;
    for (int64_t d = 0; d < c.dim; d++) dot += double(t.q.wide[offset(p.q, b, h, qi) + d]) * t.k.wide[offset(p.k, b, hk, row[j]) + d];
    x[j] = dot * p.scale;
    s_in[j] = c.softcap ? c.softcap * std::tanh(x[j] / c.softcap) : x[j];
    w[j] = s_in[j];
    if (c.alibi) w[j] -= double(t.slopes[h]) * double(i - j);
    if (c.bias) for_grid(p.bias, b, h, i, j, [&](int64_t at) { w[j] += t.bias.wide[at]; });
    high = std::max(high, w[j]);
  }
  for (int64_t j = 0; j < nk; j++) sum += w[j] = high == -INFINITY ? 0 : std::exp(w[j] - high);
  int64_t lse_at = b * p.lse_sb + h * p.lse_sh + qi, out_at = offset(p.out, b, h, qi);
  t.lse[lse_at] = static_cast<float>(high + std::log(sum));
  for (int64_t d = 0; d < c.dim_v; d++) t.out.wide[out_at + d] = 0, t.out.narrow[out_at + d] = 0;
  if (high == -INFINITY) return;
  double delta = c.dlse ? -t.dlse[lse_at] : 0;
  std::vector<double> o(c.dim_v), dp(nk);
  const float* dout = t.dout.wide.data() + offset(t.g.dout, b, h, qi);
  for (int64_t j = 0; j < nk; j++) {
    w[j] /= sum;
    if (w[j] == 0) continue;
    for (int64_t d = 0; d < c.dim_v; d++) {
      double v = t.v.wide[offset(p.v, b, hk, row[j]) + d];
      o[d] += w[j] * v, dp[j] += dout[d] * v;
      t.dv[offset(p.v, b, hk, row[j]) + d] += w[j] * dout[d];
    }
  }
  for (int64_t d = 0; d < c.dim_v; d++) {
    delta += o[d] * dout[d];
    t.out.set(out_at + d, c.dtype, static_cast<float>(o[d]));
  }
  for (int64_t j = 0; j < nk; j++) {
    if (w[j] == 0) continue;
    double ds = w[j] * (dp[j] - delta);
    if (c.bias) for_grid(p.bias, b, h, i, j, [&](int64_t at) { t.dbias[at] += ds; });
    if (c.alibi) t.dslopes[h] -= ds * double(i - j), t.slope_terms += std::fabs(ds * double(i - j));
    if (c.softcap) ds *= 1 - std::pow(s_in[j] / c.softcap, 2);
    ds *= p.scale;
    for (int64_t d = 0; d < c.dim; d++) {
      t.dq[offset(p.q, b, h, qi) + d] += ds * t.k.wide[offset(p.k, b, hk, row[j]) + d];
      t.dk[offset(p.k, b, hk, row[j]) + d] += ds * t.q.wide[offset(p.q, b, h, qi) + d];
    }
  }
}

void reference(Problem& t) {
  const Case& c = t.c;
  t.dq.assign(t.q.wide.size(), 0), t.dk.assign(t.k.wide.size(), 0), t.dv.assign(t.v.wide.size(), 0), t.dslopes.assign(c.heads_q, 0);
  int64_t sequences = c.cu.empty() ? c.batch : static_cast<int64_t>(c.cu.size()) - 1;
  for (int64_t s = 0; s < sequences; s++) {
    int64_t first = c.cu.empty() ? 0 : c.cu[s], nq = c.cu.empty() ? c.len_q : c.cu[s + 1] - first;
    int64_t nk = !c.cu.empty() ? nq : c.kv_lengths ? t.lengths[s] : c.len_kv;
    for (int64_t h = 0; h < c.heads_q; h++)
      for (int64_t i = 0; i < nq; i++) reference_row(t, s, h, i, first, first, nq, nk);
  }
}

std::vector<Case> backward_cases() {
  return {
      {.name = "one", .batch = 1, .heads_q = 1, .len_q = 1, .len_kv = 1, .dim = 1, .dim_v = 1},
      {.name = "plain", .heads_kv = 2, .len_q = 130, .len_kv = 201, .dim = 64, .dim_v = 64, .dlse = true},
      {.name = "odd dims", .batch = 1, .len_q = 67, .len_kv = 71, .dim = 37, .dim_v = 19},
      {.name = "wide", .batch = 1, .heads_q = 1, .len_kv = 90, .dim = 256, .dim_v = 256, .causal = true},
      {.name = "gqa", .heads_q = 6, .heads_kv = 2, .len_q = 100, .len_kv = 100, .dim = 32, .dim_v = 48, .causal = true},
      {.name = "bottom right", .len_q = 150, .len_kv = 230, .causal = true, .bottom_right = true, .kv_lengths = true},
      {.name = "more queries than keys", .batch = 1, .heads_q = 1, .len_q = 150, .len_kv = 40, .causal = true, .bottom_right = true},
      {.name = "window", .batch = 1, .heads_kv = 2, .len_q = 300, .len_kv = 300, .dim = 24, .dim_v = 8, .left = 40, .right = 11},
      {.name = "window beyond the keys", .batch = 1, .len_q = 150, .len_kv = 9, .dim = 8, .dim_v = 8, .left = 3, .right = 0},
      {.name = "causal window", .batch = 1, .heads_q = 1, .len_q = 400, .len_kv = 400, .dim = 8, .dim_v = 8, .causal = true, .left = 70},
      {.name = "softcap", .batch = 1, .heads_kv = 2, .len_q = 65, .len_kv = 129, .softcap = 3, .dlse = true},
      {.name = "packed",
       .batch = 1,
       .heads_q = 4,
       .heads_kv = 2,
       .len_q = 260,
       .len_kv = 260,
       .causal = true,
       .cu = {0, 1, 1, 70, 200, 260}},
      {.name = "rows", .heads_kv = 2, .len_q = 90, .len_kv = 140, .dim_v = 24, .rows = true},
      {.name = "bias", .bias = true},
      {.name = "bias over heads", .causal = true, .bias = true, .bias_b = false},
      {.name = "bias over all", .batch = 3, .heads_kv = 2, .bias = true, .bias_b = false, .bias_h = false},
      {.name = "key bias", .heads_kv = 2, .softcap = 5, .bias = true, .bias_h = false, .bias_q = false},
      {.name = "query bias", .heads_kv = 2, .dlse = true, .bias = true, .bias_b = false, .bias_k = false},
      {.name = "scalar bias",
       .heads_kv = 2,
       .dlse = true,
       .bias = true,
       .bias_b = false,
       .bias_h = false,
       .bias_q = false,
       .bias_k = false},
      {.name = "packed bias", .batch = 1, .len_q = 150, .len_kv = 150, .cu = {0, 40, 150}, .bias = true},
      {.name = "mask", .heads_kv = 2, .len_kv = 133, .causal = true, .mask = true},
      {.name = "block 64", .batch = 1, .len_q = 300, .len_kv = 260, .block_q = 64, .block_kv = 64},
      {.name = "block 128", .batch = 1, .len_q = 500, .len_kv = 300, .causal = true, .block_q = 128, .block_kv = 128},
      {.name = "block 48 x 24", .batch = 1, .heads_q = 1, .len_q = 301, .len_kv = 263, .block_q = 48, .block_kv = 24},
      {.name = "block 16 x 100", .batch = 1, .heads_q = 1, .len_q = 301, .len_kv = 263, .left = 200, .block_q = 16, .block_kv = 100},
      {.name = "alibi", .heads_q = 4, .heads_kv = 2, .len_q = 100, .len_kv = 100, .causal = true, .alibi = true},
      {.name = "alibi, chunks", .batch = 1, .len_q = 1100, .len_kv = 64, .dim = 8, .dim_v = 8, .softcap = 4, .alibi = true},
      {.name = "chunks", .batch = 1, .len_q = 2100, .len_kv = 300, .dim = 8, .dim_v = 8, .causal = true, .bottom_right = true},
      {.name = "bf16", .len_q = 100, .len_kv = 150, .dim = 64, .dim_v = 64, .causal = true, .dlse = true, .dtype = DType::BF16},
  };
}

}  // namespace
