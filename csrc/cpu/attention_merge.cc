// Rows are independent: the largest lse of the parts is taken out, so nothing overflows, and parts are added in their order.
#include "cpu/attention_merge.h"

#include <math.h>

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kRowsPerTile = 64;

// Adds weight * row to `sum` (dim floats).
template <class T>
void add_row(const T* row, float weight, int64_t dim, float* sum) {
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) store(sum + d, fma(set1(weight), load(row + d), load(sum + d)));
  for (; d < dim; d++) sum[d] += weight * to_float(row[d]);
}

template <class T>
void merge_row(const AttentionMergeParams& p, int64_t r, float* sum) {
  float highest = -__builtin_inff();
  for (int64_t i = 0; i < p.count; i++) highest = p.lses[i][r] > highest ? p.lses[i][r] : highest;
  const bool nothing = highest == -__builtin_inff();
  double total = 0;
  for (int64_t i = 0; i < p.count && !nothing; i++) total += ::exp(static_cast<double>(p.lses[i][r]) - highest);
  const double lse = nothing ? highest : highest + ::log(total);
  for (int64_t d = 0; d < p.dim; d++) sum[d] = 0;
  for (int64_t i = 0; i < p.count; i++) {
    const float part = p.lses[i][r], weight = nothing ? 0.f : static_cast<float>(::exp(part - lse));
    // A part without keys may hold anything.
    if (weight != 0) add_row(static_cast<const T*>(p.outs[i]) + r * p.dim, weight, p.dim, sum);
  }
  p.lse[r] = static_cast<float>(lse);
  T* to = static_cast<T*>(p.out) + r * p.dim;
  for (int64_t d = 0; d < p.dim; d++) to[d] = narrow<T>(sum[d]);
}

template <class T>
void merge_row_backward(const AttentionMergeGrads& g, int64_t r) {
  const AttentionMergeParams& p = g.forward;
  const T *out = static_cast<const T*>(p.out) + r * p.dim, *dout = g.dout ? static_cast<const T*>(g.dout) + r * p.dim : nullptr;
  for (int64_t i = 0; i < p.count; i++) {
    const float part = p.lses[i][r];
    const bool nothing = part == -__builtin_inff();
    const float weight = nothing ? 0.f : static_cast<float>(::exp(static_cast<double>(part) - p.lse[r]));
    const T* mine = static_cast<const T*>(p.outs[i]) + r * p.dim;
    T* to = static_cast<T*>(g.douts[i]) + r * p.dim;
    double along = g.dlse ? g.dlse[r] : 0;
    for (int64_t d = 0; d < p.dim; d++) {
      const float up = dout ? to_float(dout[d]) : 0.f;
      if (!nothing) along += up * (to_float(mine[d]) - to_float(out[d]));
      to[d] = narrow<T>(weight * up);
    }
    g.dlses[i][r] = nothing ? 0.f : static_cast<float>(weight * along);
  }
}

template <class Body>
void each_row(const AttentionMergeParams& p, ThreadPool& pool, Body&& body) {
  pool.run((p.rows + kRowsPerTile - 1) / kRowsPerTile, [&](int64_t tile, int thread) {
    const int64_t end = (tile + 1) * kRowsPerTile < p.rows ? (tile + 1) * kRowsPerTile : p.rows;
    for (int64_t r = tile * kRowsPerTile; r < end; r++) body(r, thread);
  });
}

template <class T>
void merge(const AttentionMergeParams& p, ThreadPool& pool) {
  each_row(p, pool,
           [&](int64_t r, int thread) { merge_row<T>(p, r, static_cast<float*>(pool.scratch(thread, static_cast<size_t>(p.dim) * 4))); });
}

template <class T>
void merge_backward(const AttentionMergeGrads& g, ThreadPool& pool) {
  each_row(g.forward, pool, [&](int64_t r, int) { merge_row_backward<T>(g, r); });
}

}  // namespace

template <>
void attention_merge<kIsa>(const AttentionMergeParams& p, ThreadPool& pool) {
  if (p.dtype == DType::F32) merge<float>(p, pool);
  else if (p.dtype == DType::BF16) merge<bf16>(p, pool);
  else merge<f16>(p, pool);
}

template <>
void attention_merge_backward<kIsa>(const AttentionMergeGrads& g, ThreadPool& pool) {
  if (g.forward.dtype == DType::F32) merge_backward<float>(g, pool);
  else if (g.forward.dtype == DType::BF16) merge_backward<bf16>(g, pool);
  else merge_backward<f16>(g, pool);
}

}  // namespace fovea::cpu
