// Rows of q, k, v and their gradients between tensors (any dtype, any strides, physical rows) and f32 scratch.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/attention_params.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

// Pitch of an f32 row in scratch; the same at every level, so that sizes are.
constexpr int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

template <class T>
void widen_row(const T* from, int64_t stride, int64_t n, float* to) {
  int64_t d = 0;
  if (stride == 1)
    for (; d + kLanes <= n; d += kLanes) store(to + d, load(from + d));
  for (; d < n; d++) to[d] = to_float(from[d * stride]);
  for (int64_t end = padded(n); d < end; d++) to[d] = 0;
}

// to[0, padded(n)) = row at `offset` elements, zero beyond n.
inline void widen_row(DType dtype, const AttentionTensor& t, int64_t offset, int64_t n, float* to) {
  switch (dtype) {
    case DType::BF16: return widen_row(static_cast<const bf16*>(t.data) + offset, t.sd, n, to);
    case DType::F16: return widen_row(static_cast<const f16*>(t.data) + offset, t.sd, n, to);
    default: return widen_row(static_cast<const float*>(t.data) + offset, t.sd, n, to);
  }
}

template <class T>
void put_row(T* to, int64_t stride, const float* from, int64_t n, float factor, bool add) {
  int64_t d = 0;
  if (stride == 1) {
    for (; d + kLanes <= n; d += kLanes) {
      vf v = load(from + d) * factor;
      store(to + d, add ? load(to + d) + v : v);
    }
  }
  for (; d < n; d++) {
    float v = from[d] * factor;
    to[d * stride] = narrow<T>(add ? to_float(to[d * stride]) + v : v);
  }
}

// Row at `offset` = (or +=) factor * from[0, n).
inline void put_row(DType dtype, const AttentionTensor& t, int64_t offset, const float* from, int64_t n, float factor, bool add) {
  switch (dtype) {
    case DType::BF16: return put_row(static_cast<bf16*>(t.data) + offset, t.sd, from, n, factor, add);
    case DType::F16: return put_row(static_cast<f16*>(t.data) + offset, t.sd, from, n, factor, add);
    default: return put_row(static_cast<float*>(t.data) + offset, t.sd, from, n, factor, add);
  }
}

inline float grid_element(const AttentionGrid& g, int64_t offset) {
  switch (g.dtype) {
    case DType::BF16: return to_float(static_cast<const bf16*>(g.data)[offset]);
    case DType::F16: return to_float(static_cast<const f16*>(g.data)[offset]);
    default: return static_cast<const float*>(g.data)[offset];
  }
}

}  // namespace
}  // namespace fovea::cpu
