// Random calls of attention over every feature of AttentionParams, and what they give by plain double-precision loops. Shared by the tests
// of the engines: the CPU's in this folder, the device's in test/gpu.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/attention_params.h"
#include "random.h"
#include "sixteen_bit.h"

using namespace fovea;

namespace {

float normal() { return std::normal_distribution<float>(0, 1)(engine); }

// A tensor [b, h, l, d] with padded, permuted or reversed-inner strides.
struct Rows {
  DType dtype = DType::F32;
  int64_t b = 0, h = 0, l = 0, d = 0;
  AttentionTensor view;
  std::vector<uint8_t> bytes;

  void make(DType type, int64_t nb, int64_t nh, int64_t nl, int64_t nd, float spread) {
    dtype = type, b = nb, h = nh, l = nl, d = nd;
    int64_t pitch = d + (chance(0.3) ? uniform(1, 5) : 0);
    if (chance(0.1)) view.sd = 2, pitch = 2 * d;
    bool heads_inside = chance(0.5);
    view.sl = heads_inside ? pitch * h : pitch;
    view.sh = heads_inside ? pitch : pitch * l;
    view.sb = pitch * h * l;
    bytes.assign(static_cast<size_t>(b * view.sb + 1) * size_of(type), 0xff);  // NaN everywhere a kernel must not look
    view.data = bytes.data();
    for (int64_t i = 0; i < b; i++)
      for (int64_t j = 0; j < h; j++)
        for (int64_t k = 0; k < l; k++)
          for (int64_t e = 0; e < d; e++) set(i, j, k, e, spread * normal());
  }
  int64_t at(int64_t i, int64_t j, int64_t k, int64_t e) const { return i * view.sb + j * view.sh + k * view.sl + e * view.sd; }
  void set(int64_t i, int64_t j, int64_t k, int64_t e, float x) {
    if (dtype == DType::F32) reinterpret_cast<float*>(bytes.data())[at(i, j, k, e)] = x;
    else reinterpret_cast<uint16_t*>(bytes.data())[at(i, j, k, e)] = narrow(dtype, x);
  }
  double get(int64_t i, int64_t j, int64_t k, int64_t e) const { return widen(dtype, bytes.data(), at(i, j, k, e)); }
};

struct Case {
  AttentionParams p{};
  Rows q, k, v, out;
  std::vector<float> lse;
  std::vector<int32_t> kv_lengths, cu_q, cu_kv, q_rows, kv_rows, page_table;
  std::vector<uint8_t> bias, mask;
  BlockMaskView block{};
  std::vector<int32_t> row_begin, columns, tiles;
  std::vector<uint8_t> bits;
  std::string text;
};

AttentionGrid random_grid(DType dtype, const AttentionParams& p, std::vector<uint8_t>& bytes) {
  AttentionGrid g;
  g.dtype = dtype;
  int64_t n = 1;
  auto axis = [&](int64_t size, double share) {
    if (!chance(share)) return int64_t{0};
    int64_t stride = n;
    n *= size;
    return stride;
  };
  if (chance(0.1)) {  // queries innermost
    g.sq = axis(p.len_q, 0.8);
    g.skv = axis(p.len_kv, 0.8);
  } else {
    g.skv = axis(p.len_kv, 0.8);
    g.sq = axis(p.len_q, 0.8);
  }
  g.sh = axis(p.heads_q, 0.5);
  g.sb = axis(p.batch, 0.5);
  bytes.resize(static_cast<size_t>(n) * size_of(dtype));
  for (int64_t i = 0; i < n; i++) {
    float x = chance(0.1) ? -INFINITY : normal();
    if (dtype == DType::Bool) bytes[static_cast<size_t>(i)] = chance(0.7);
    else if (dtype == DType::F32) reinterpret_cast<float*>(bytes.data())[i] = x;
    else reinterpret_cast<uint16_t*>(bytes.data())[i] = narrow(dtype, x);
  }
  g.data = bytes.data();
  return g;
}

void random_block_mask(Case& c) {
  BlockMaskView& m = c.block;
  m.block_q = static_cast<int32_t>(16 * uniform(1, 9));
  m.block_kv = static_cast<int32_t>(16 * uniform(1, 9));
  m.q_length = c.p.len_q - (chance(0.2) ? uniform(0, c.p.len_q - 1) : 0);
  m.kv_length = c.p.len_kv - (chance(0.2) ? uniform(0, c.p.len_kv - 1) : 0);
  m.q_blocks = static_cast<int32_t>((c.p.len_q + m.block_q - 1) / m.block_q);
  m.kv_blocks = static_cast<int32_t>((c.p.len_kv + m.block_kv - 1) / m.block_kv);
  bool per_head = chance(0.5), per_batch = chance(0.5);
  m.head_stride = per_head ? m.q_blocks : 0;
  m.batch_stride = per_batch ? m.q_blocks * static_cast<int32_t>(per_head ? c.p.heads_q : 1) : 0;
  int64_t rows = m.q_blocks * (per_head ? c.p.heads_q : 1) * (per_batch ? c.p.batch : 1);
  double density = std::uniform_real_distribution<>(0, 1)(engine);
  int64_t bit_tiles = 4, tile_bytes = m.tile_bytes();
  c.bits.resize(static_cast<size_t>(bit_tiles * tile_bytes));
  for (auto& x : c.bits) x = static_cast<uint8_t>(uniform(0, 255));
  c.row_begin = {0};
  for (int64_t r = 0; r < rows; r++) {
    for (int32_t col = 0; col < m.kv_blocks; col++)
      if (chance(density)) c.columns.push_back(col), c.tiles.push_back(chance(0.5) ? -1 : static_cast<int32_t>(uniform(0, bit_tiles - 1)));
    c.row_begin.push_back(static_cast<int32_t>(c.columns.size()));
  }
  m.row_begin = c.row_begin.data();
  m.columns = c.columns.data();
  m.tiles = c.tiles.data();
  m.bits = c.bits.data();
  c.p.block_mask = &m;
}

void random_packing(Case& c) {
  AttentionParams& p = c.p;
  c.cu_q = {0}, c.cu_kv = {0};
  while (c.cu_q.back() < p.len_q || c.cu_kv.back() < p.len_kv) {
    c.cu_q.push_back(static_cast<int32_t>(std::min<int64_t>(p.len_q, c.cu_q.back() + uniform(0, 1 + p.len_q / 2))));
    c.cu_kv.push_back(static_cast<int32_t>(std::min<int64_t>(p.len_kv, c.cu_kv.back() + uniform(0, 1 + p.len_kv / 2))));
  }
  p.sequences = static_cast<int64_t>(c.cu_q.size()) - 1;
  p.cu_q = c.cu_q.data(), p.cu_kv = c.cu_kv.data();
}

void random_rows(Case& c) {
  AttentionParams& p = c.p;
  if (chance(0.5)) {
    p.q_rows_sh = p.len_q, p.q_rows_sb = p.len_q * p.heads_q;
    c.q_rows.resize(static_cast<size_t>(p.q_rows_sb * p.batch));
    for (size_t i = 0; i < c.q_rows.size(); i++) {
      int64_t l = static_cast<int64_t>(i) % p.len_q;
      c.q_rows[i] = chance(0.1) ? -1 : static_cast<int32_t>(p.len_q - 1 - l);
    }
    p.q_rows = c.q_rows.data();
  }
  p.kv_rows_sh = p.len_kv, p.kv_rows_sb = p.len_kv * p.heads_kv;
  c.kv_rows.resize(static_cast<size_t>(p.kv_rows_sb * p.batch));
  for (auto& r : c.kv_rows) r = chance(0.1) ? -1 : static_cast<int32_t>(uniform(0, p.len_kv - 1));
  p.kv_rows = c.kv_rows.data();
}

void make(Case& c, bool decode) {
  AttentionParams& p = c.p;
  constexpr DType dtypes[] = {DType::F32, DType::F32, DType::BF16, DType::F16};
  p.dtype = dtypes[uniform(0, 3)];
  p.batch = uniform(1, 3);
  p.heads_kv = uniform(1, 3);
  p.heads_q = p.heads_kv * (chance(0.5) ? 1 : uniform(1, 8));
  p.len_q = decode ? uniform(1, 16) : chance(0.3) ? uniform(1, 20) : uniform(1, 300);
  p.len_kv = decode ? uniform(1, 4000) : chance(0.2) ? uniform(1, 20) : uniform(1, 400);
  if (decode && chance(0.5)) p.len_q = 1, p.heads_q = p.heads_kv * uniform(1, 8);
  p.dim = chance(0.4) ? 64 : uniform(1, chance(0.1) ? 256 : 80);
  p.dim_v = chance(0.5) ? p.dim : uniform(1, chance(0.1) ? 256 : 80);
  if (decode && chance(0.4)) p.dim = 32 * uniform(1, 6), p.dim_v = 32 * uniform(1, 6);
  p.scale = 1 / std::sqrt(static_cast<float>(p.dim)) * (chance(0.1) ? 30.f : 1.f);
  if (chance(0.15)) p.softcap = std::uniform_real_distribution<float>(1, 50)(engine);
  p.causal = chance(0.4);
  p.align = chance(0.5) ? Align::TopLeft : Align::BottomRight;
  if (chance(0.25)) p.window_left = uniform(0, p.len_kv);
  if (chance(0.25)) p.window_right = uniform(0, p.len_kv);

  bool packed = !decode && chance(0.15), paged = !packed && chance(0.15), block = !packed && chance(0.3);
  if (packed) p.batch = 1, random_packing(c);
  else if (chance(0.3)) {
    for (int64_t i = 0; i < p.batch; i++) c.kv_lengths.push_back(static_cast<int32_t>(uniform(0, p.len_kv + 1)));
    p.kv_lengths = c.kv_lengths.data();
  }
  if (!packed && !paged && chance(0.2)) random_rows(c);
  if (!packed && chance(0.2)) p.bias = random_grid(dtypes[uniform(1, 3)], p, c.bias);
  if (!packed && chance(0.2)) p.mask = random_grid(DType::Bool, p, c.mask);
  if (block) random_block_mask(c);

  float spread = chance(0.1) ? 4.f : 1.f;
  c.q.make(p.dtype, p.batch, p.heads_q, p.len_q, p.dim, spread);
  int64_t kv_batch = p.batch, kv_len = p.len_kv;
  if (paged) {
    p.page_size = uniform(1, 40);
    p.page_table_sb = (p.len_kv + p.page_size - 1) / p.page_size;
    kv_batch = p.batch * p.page_table_sb, kv_len = p.page_size;
    for (int64_t i = 0; i < kv_batch; i++) c.page_table.push_back(static_cast<int32_t>(kv_batch - 1 - i));
    p.page_table = c.page_table.data();
  }
  c.k.make(p.dtype, kv_batch, p.heads_kv, kv_len, p.dim, spread);
  c.v.make(p.dtype, kv_batch, p.heads_kv, kv_len, p.dim_v, 1);
  c.out.make(p.dtype, p.batch, p.heads_q, p.len_q, p.dim_v, 1);
  p.q = c.q.view, p.k = c.k.view, p.v = c.v.view, p.out = c.out.view;
  c.lse.assign(static_cast<size_t>(p.batch * p.heads_q * p.len_q), 12345);
  p.lse = c.lse.data();
  p.lse_sh = p.len_q, p.lse_sb = p.len_q * p.heads_q;

  char line[400];
  std::snprintf(line, sizeof line, "%s B%ld Hq%ld Hkv%ld Lq%ld Lkv%ld D%ld Dv%ld%s%s w[%ld,%ld]%s%s%s%s%s%s%s%s", name_of(p.dtype), p.batch,
                p.heads_q, p.heads_kv, p.len_q, p.len_kv, p.dim, p.dim_v, p.causal ? " causal" : "",
                p.align == Align::BottomRight ? " bottom-right" : "", p.window_left, p.window_right, p.softcap > 0 ? " softcap" : "",
                p.kv_lengths ? " lengths" : "", p.cu_q ? " packed" : "", p.q_rows ? " q_rows" : "", p.kv_rows ? " kv_rows" : "",
                p.page_table ? " paged" : "", p.bias.data ? " bias" : "", p.mask.data ? " mask" : "");
  c.text = line;
  if (block) c.text += " block" + std::to_string(c.block.block_q) + "x" + std::to_string(c.block.block_kv);
}

bool visible(const Case& c, int64_t b, int64_t h, int64_t i, int64_t j, int64_t q_len, int64_t kv_len) {
  const AttentionParams& p = c.p;
  int64_t at = i + (p.align == Align::BottomRight ? kv_len - q_len : 0);
  if (j >= kv_len || (p.causal && j > at)) return false;
  if (p.window_left >= 0 && j < at - p.window_left) return false;
  if (p.window_right >= 0 && j > at + p.window_right) return false;
  const AttentionGrid& g = p.mask;
  if (g.data && !static_cast<const uint8_t*>(g.data)[b * g.sb + h * g.sh + i * g.sq + j * g.skv]) return false;
  if (p.kv_rows && p.kv_rows[b * p.kv_rows_sb + h / (p.heads_q / p.heads_kv) * p.kv_rows_sh + j] < 0) return false;
  if (const BlockMaskView* m = p.block_mask) {
    if (i >= m->q_length || j >= m->kv_length) return false;
    int64_t row = b * m->batch_stride + h * m->head_stride + i / m->block_q;
    for (int32_t e = m->row_begin[row]; e < m->row_begin[row + 1]; e++)
      if (m->columns[e] == j / m->block_kv) {
        if (m->tiles[e] < 0) return true;
        int64_t bit = i % m->block_q;
        return m->bits[m->tiles[e] * m->tile_bytes() + j % m->block_kv * (m->block_q / 8) + bit / 8] >> (bit % 8) & 1;
      }
    return false;
  }
  return true;
}

struct Expected {
  std::vector<double> out, lse;
  std::vector<bool> written;
  double largest_score = 0;
};

void reference_row(const Case& c, Expected& e, int64_t b, int64_t h, int64_t i, int64_t q0, int64_t kv0, int64_t q_len, int64_t kv_len) {
  const AttentionParams& p = c.p;
  int64_t hk = h / (p.heads_q / p.heads_kv), row = q0 + i;
  if (p.q_rows) row = p.q_rows[b * p.q_rows_sb + h * p.q_rows_sh + i];
  if (row < 0) return;
  std::vector<double> weight;
  std::vector<int64_t> kb, kl;
  double highest = -INFINITY;
  for (int64_t j = 0; j < kv_len; j++) {
    if (!visible(c, b, h, i, j, q_len, kv_len)) continue;
    int64_t batch = b, key = kv0 + j;
    if (p.kv_rows) key = p.kv_rows[b * p.kv_rows_sb + hk * p.kv_rows_sh + j];
    if (p.page_table) batch = p.page_table[b * p.page_table_sb + j / p.page_size], key = j % p.page_size;
    double s = 0;
    for (int64_t d = 0; d < p.dim; d++) s += c.q.get(b, h, row, d) * c.k.get(batch, hk, key, d);
    s *= p.scale;
    if (p.softcap > 0) s = p.softcap * std::tanh(s / p.softcap);
    if (p.bias.data) s += widen(p.bias.dtype, p.bias.data, b * p.bias.sb + h * p.bias.sh + i * p.bias.sq + j * p.bias.skv);
    weight.push_back(s), kb.push_back(batch), kl.push_back(key);
    highest = std::max(highest, s);
    if (std::isfinite(s)) e.largest_score = std::max(e.largest_score, std::fabs(s));
  }
  double sum = 0;
  for (double& w : weight) sum += w = highest == -INFINITY ? 0 : std::exp(w - highest);
  size_t at = static_cast<size_t>((b * p.heads_q + h) * p.len_q + row);
  e.written[at] = true;
  e.lse[at] = sum > 0 ? highest + std::log(sum) : -INFINITY;
  for (int64_t d = 0; d < p.dim_v; d++) {
    double o = 0;
    for (size_t n = 0; n < weight.size(); n++) o += weight[n] * c.v.get(kb[n], hk, kl[n], d);
    e.out[at * static_cast<size_t>(p.dim_v) + static_cast<size_t>(d)] = sum > 0 ? o / sum : 0;
  }
}

Expected reference(const Case& c) {
  const AttentionParams& p = c.p;
  size_t rows = c.lse.size();
  Expected e{std::vector<double>(rows * static_cast<size_t>(p.dim_v)), std::vector<double>(rows), std::vector<bool>(rows), 0};
  for (int64_t s = 0; s < (p.cu_q ? p.sequences : p.batch); s++) {
    int64_t q0 = p.cu_q ? p.cu_q[s] : 0, kv0 = p.cu_kv ? p.cu_kv[s] : 0;
    int64_t q_len = p.cu_q ? p.cu_q[s + 1] - q0 : p.len_q, kv_len = p.cu_kv ? p.cu_kv[s + 1] - kv0 : p.len_kv;
    if (p.kv_lengths) kv_len = std::min<int64_t>(kv_len, p.kv_lengths[s]);
    for (int64_t h = 0; h < p.heads_q; h++)
      for (int64_t i = 0; i < q_len; i++) reference_row(c, e, p.cu_q ? 0 : s, h, i, q0, kv0, q_len, kv_len);
  }
  return e;
}

// Largest error relative to the largest reference value; infinite where infinities or untouched rows differ.
double compare(const Case& c, const Expected& e, double& lse_error) {
  const AttentionParams& p = c.p;
  double worst = 0, scale = 0;
  lse_error = 0;
  for (double x : e.out) scale = std::max(scale, std::fabs(x));
  for (size_t r = 0; r < e.lse.size(); r++) {
    if (!e.written[r]) continue;
    int64_t l = static_cast<int64_t>(r) % p.len_q, h = static_cast<int64_t>(r) / p.len_q % p.heads_q,
            b = static_cast<int64_t>(r) / p.len_q / p.heads_q;
    if (std::isinf(e.lse[r]) || !std::isfinite(c.lse[r])) lse_error = c.lse[r] == e.lse[r] ? lse_error : INFINITY;
    else lse_error = std::max(lse_error, std::fabs(c.lse[r] - e.lse[r]) / std::max(1.0, std::fabs(e.lse[r])));
    for (int64_t d = 0; d < p.dim_v; d++) {
      double diff = std::fabs(c.out.get(b, h, l, d) - e.out[r * static_cast<size_t>(p.dim_v) + static_cast<size_t>(d)]);
      if (diff != 0 && !(diff / scale <= worst)) worst = std::isfinite(diff) ? diff / scale : INFINITY;
    }
  }
  return worst;
}

// Of outputs, relative to the largest. A score of 100 has an ulp of 8e-6, which the exponential passes on whole.
double tolerance(const Case& c, const Expected& e) {
  return 2.5e-7 * e.largest_score + (c.p.dtype == DType::F32 ? 2e-5 : c.p.dtype == DType::BF16 ? 1e-2 : 2e-3);
}

double lse_tolerance(const Case& c) { return c.p.dtype == DType::BF16 ? 3e-4 : 1e-5; }

}  // namespace
