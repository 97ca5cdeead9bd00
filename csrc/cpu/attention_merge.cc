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
void merge(const AttentionMergeParams& p, ThreadPool& pool) {
  auto body = [&](int64_t tile, int thread) {
    float* sum = static_cast<float*>(pool.scratch(thread, static_cast<size_t>(p.dim) * 4));
    const int64_t end = (tile + 1) * kRowsPerTile < p.rows ? (tile + 1) * kRowsPerTile : p.rows;
    for (int64_t r = tile * kRowsPerTile; r < end; r++) merge_row<T>(p, r, sum);
  };
  pool.run((p.rows + kRowsPerTile - 1) / kRowsPerTile, body);
}

}  // namespace

template <>
void attention_merge<kIsa>(const AttentionMergeParams& p, ThreadPool& pool) {
  if (p.dtype == DType::F32) merge<float>(p, pool);
  else if (p.dtype == DType::BF16) merge<bf16>(p, pool);
  else merge<f16>(p, pool);
}

}  // namespace fovea::cpu
